package cache_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/cache"
	"github.com/workerd/workerd/internal/job"
)

func at(d time.Duration) time.Time { return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC).Add(d) }

func key(s string) cache.Key { return cache.KeyOf([]byte(s)) }

func reply(bytes int) *job.Reply { return &job.Reply{Status: 200, Body: make([]byte, bytes)} }

func TestCache_givesTheLatestReplyThatIsYoungEnough(t *testing.T) {
	c := cache.New(cache.Config{}.WithDefaults())
	first, second := reply(1), reply(2)
	c.Put(key("a"), first, at(0))
	c.Put(key("a"), second, at(time.Second))
	c.Put(key("a"), first, at(time.Millisecond)) // came late
	if got, age, ok := c.Get(key("a"), at(time.Minute), time.Minute); !ok || got != second || age != 59*time.Second {
		t.Errorf("got %v, %s, %v", got, age, ok)
	}
	if _, _, ok := c.Get(key("a"), at(time.Hour), time.Minute); ok {
		t.Error("an old reply was given")
	}
	if _, _, ok := c.Get(key("b"), at(0), time.Minute); ok {
		t.Error("a reply to something else was given")
	}
	if got, want := c.Stats(), (cache.Stats{Entries: 1, Bytes: c.Stats().Bytes, Counts: cache.Counts{Hits: 1, Misses: 1, Stale: 1}}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func TestCache_whatIsCutOffOrTooLargeReplacesNothingByItself(t *testing.T) {
	for name, r := range map[string]*job.Reply{"too large": reply(300 << 10), "cut off": {Truncated: true}} {
		c := cache.New(cache.Config{}.WithDefaults())
		c.Put(key("a"), reply(1), at(0))
		c.Put(key("a"), r, at(1))
		if _, _, ok := c.Get(key("a"), at(2), time.Minute); ok || c.Stats().Bytes != 0 {
			t.Errorf("%s: there still is a reply, which is wrong by now", name)
		}
	}
}

func TestKeyOf_dividesItsParts(t *testing.T) {
	seen := map[cache.Key]string{}
	for _, parts := range [][]string{{}, {""}, {"", ""}, {"ab"}, {"a", "b"}, {"", "ab"}, {"ab", ""}} {
		var b [][]byte
		for _, p := range parts {
			b = append(b, []byte(p))
		}
		name := fmt.Sprintf("%q", parts)
		if other, ok := seen[cache.KeyOf(b...)]; ok {
			t.Errorf("%s and %s are the same", name, other)
		}
		seen[cache.KeyOf(b...)] = name
	}
}

// TestCache_isBounded is the other half of invariant 39: entries and bytes stay
// within their bounds, what is given is what was put, byte for byte, and what
// was used last stays longest.
func TestCache_isBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := cache.Config{MaxEntries: rapid.IntRange(1, 8).Draw(t, "entries"), MaxBytes: 64 << 10, MaxEntry: int64(rapid.IntRange(1, 40<<10).Draw(t, "entry"))}
		c, model, asked := cache.New(cfg), map[string][]byte{}, uint64(0)
		for n := range rapid.IntRange(1, 100).Draw(t, "steps") {
			name := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}).Draw(t, "key")
			now := at(time.Duration(n) * time.Second)
			if rapid.Bool().Draw(t, "put") {
				body := bytes.Repeat([]byte{byte(n)}, rapid.IntRange(0, 50<<10).Draw(t, "bytes"))
				c.Put(key(name), &job.Reply{Body: body}, now)
				model[name] = bytes.Clone(body)
				_, _, kept := c.Get(key(name), now, 0)
				asked++
				if fits := int64(len(body)) <= cfg.MaxEntry; kept != fits {
					t.Fatalf("%d bytes: kept %v, want %v", len(body), kept, fits)
				}
			} else {
				r, _, ok := c.Get(key(name), now, time.Hour)
				asked++
				if ok && !bytes.Equal(r.Body, model[name]) {
					t.Fatalf("%s is not what was put", name)
				}
			}
			if s := c.Stats(); s.Hits+s.Misses+s.Stale != asked {
				t.Fatalf("%+v: asked %d times", s, asked)
			}
			if s := c.Stats(); s.Entries > cfg.MaxEntries || s.Bytes > cfg.MaxBytes || s.Bytes < 0 || s.Entries == 0 && s.Bytes != 0 {
				t.Fatalf("%+v is out of bounds", s)
			}
		}
	})
}

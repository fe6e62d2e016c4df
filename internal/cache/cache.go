// Package cache keeps the last good reply of targets, for the time when they
// have none to give.
//
// Guarantees:
//  1. Never more entries or bytes than configured. When there is no room the
//     least recently used goes; what is too large for the cache is not kept.
//  2. A reply that was handed in is not changed, and is handed out as it is.
//  3. What is older than the asker wants is not handed out.
//
// Nothing is loaded through it, so there is nothing to wait for: who asks gets
// what is there.
package cache

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// Key names what a reply is the answer to.
type Key [sha256.Size]byte

// KeyOf makes a key of parts. Other parts, or the same ones divided
// otherwise, make another key.
func KeyOf(parts ...[]byte) (k Key) {
	h := sha256.New()
	var size [8]byte
	for _, p := range parts {
		binary.LittleEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write(p)
	}
	h.Sum(k[:0])
	return k
}

// overhead is what an entry takes beside the reply's own bytes, about.
const overhead = 256

// entry is one reply. It is not written to once it is in the list.
type entry struct {
	key   Key
	reply *job.Reply
	at    time.Time
	size  int64
}

// Cache of replies. Any number of goroutines may use it at once.
type Cache struct {
	cfg Config

	mu      sync.Mutex // guards all below
	entries map[Key]*list.Element
	recent  list.List // of *entry, the most recently used first
	bytes   int64
	counts  Counts
}

// New returns an empty cache. The config must be valid, with its defaults.
func New(cfg Config) *Cache {
	return &Cache{cfg: cfg, entries: make(map[Key]*list.Element)}
}

// Put keeps a reply of the time now, instead of an older one. The caller must
// not write to it any more. A reply that is cut off or too large is not kept,
// nor is an older one under its key: it would be wrong by now.
func (c *Cache) Put(k Key, r *job.Reply, now time.Time) {
	e := &entry{key: k, reply: r, at: now, size: int64(cap(r.Body)+len(r.ContentType)) + overhead}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.entries[k]; ok {
		if now.Before(old.Value.(*entry).at) {
			return
		}
		c.remove(old)
	}
	if r.Truncated || int64(len(r.Body)) > c.cfg.MaxEntry || e.size > c.cfg.MaxBytes {
		return
	}
	c.entries[k] = c.recent.PushFront(e)
	c.bytes += e.size
	for c.recent.Len() > c.cfg.MaxEntries || c.bytes > c.cfg.MaxBytes {
		c.remove(c.recent.Back())
		c.counts.Evicted++
	}
}

// Get returns the reply under a key and its age, if it is not older than oldest.
func (c *Cache) Get(k Key, now time.Time, oldest time.Duration) (r *job.Reply, age time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.entries[k]
	if !ok {
		c.counts.Misses++
		return nil, 0, false
	}
	e := element.Value.(*entry)
	age = max(0, now.Sub(e.at))
	if age > oldest {
		c.counts.Stale++
		return nil, 0, false // it stays: another may want it all the same
	}
	c.counts.Hits++
	c.recent.MoveToFront(element)
	return e.reply, age, true
}

// remove is called with mu held.
func (c *Cache) remove(element *list.Element) {
	e := c.recent.Remove(element).(*entry)
	delete(c.entries, e.key)
	c.bytes -= e.size
}

// Counts of what was asked of a cache since the start.
type Counts struct {
	// Hits: a reply was given. Misses: none was kept. Stale: it was older than
	// the asker wants.
	Hits, Misses, Stale uint64
	// Evicted entries, for want of room.
	Evicted uint64
}

// Stats of a cache at one instant.
type Stats struct {
	Entries int
	Bytes   int64
	Counts
}

// Stats may be called from any goroutine.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{Entries: c.recent.Len(), Bytes: c.bytes, Counts: c.counts}
}

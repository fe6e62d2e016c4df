package shed_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/codel"
	"github.com/workerd/workerd/internal/shed"
)

// TestInvariant31_sameTenantSameLevel: whoever asks, within an hour.
func TestInvariant31_sameTenantSameLevel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tenant, hour := rapid.String().Draw(t, "tenant"), time.Unix(3600*rapid.Int64Range(0, 1e6).Draw(t, "hour"), 0)
		want := shed.Level(tenant, hour)
		if want < 0 || want >= shed.Levels {
			t.Fatalf("%d is no level", want)
		}
		zone := time.FixedZone("elsewhere", rapid.IntRange(-12, 14).Draw(t, "zone")*1800)
		at := hour.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)-1).Draw(t, "later"))).In(zone)
		if got := shed.Level(tenant, at); got != want {
			t.Fatalf("level %d, later in the hour %d", want, got)
		}
	})
}

func TestLevel_isDrawnAnewEachHourAndNobodyIsFavoured(t *testing.T) {
	if shed.Levels != codel.Levels {
		t.Fatalf("%d levels, and %d in the queue", shed.Levels, codel.Levels)
	}
	const tenants, hours = 2000, 24 * 30
	stayed := 0
	for tenant := range tenants {
		name := fmt.Sprintf("customer-%d", tenant)
		if a, b := shed.Level(name, time.Unix(0, 0)), shed.Level(name, time.Unix(3600, 0)); a == b {
			stayed++
		}
	}
	if stayed > 4*tenants/shed.Levels { // 16 are to be expected
		t.Errorf("%d of %d tenants have the same level in the next hour", stayed, tenants)
	}
	for _, name := range []string{"", "a", "gold"} {
		total := 0
		for hour := range hours {
			total += shed.Level(name, time.Unix(int64(hour)*3600, 0))
		}
		if mean := float64(total) / hours; mean < 55 || mean > 72 { // 63.5, and 1.4 is the deviation of the mean
			t.Errorf("%q is at level %.1f on average of a month", name, mean)
		}
	}
}

func BenchmarkLevel(b *testing.B) {
	b.ReportAllocs()
	now := time.Unix(0, 0)
	for b.Loop() {
		shed.Level("customer-12345", now)
	}
}

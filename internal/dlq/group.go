package dlq

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Bounds of what is remembered while letters are grouped.
const (
	maxGroups = 10_000
	maxPools  = 100 // of one group
)

// Group is the letters of one cause.
type Group struct {
	Fingerprint string `json:"fingerprint"`
	// Cause and Reason are those of the last letter.
	Cause  string `json:"cause"`
	Reason string `json:"reason"`
	// Pools that have such letters, sorted.
	Pools []string `json:"pools"`
	Count int      `json:"count"`
	// First and Last are when letters of this cause were stored.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// Groups are the letters chosen, by cause, the largest group first. Letters of
// further causes, should there be more than 10,000, are only counted.
func (b *Box) Groups(ctx context.Context, f Filter) (groups []Group, others int, err error) {
	byCause := map[string]*Group{}
	for l, err := range b.Heads(ctx, f) {
		if err != nil {
			return nil, 0, err
		}
		g := byCause[l.Fingerprint]
		if g == nil && len(byCause) == maxGroups {
			others++
			continue
		}
		if g == nil {
			g = &Group{Fingerprint: l.Fingerprint, First: l.Stored}
			byCause[l.Fingerprint] = g
		}
		g.add(l)
	}
	for _, g := range byCause {
		groups = append(groups, *g)
	}
	slices.SortFunc(groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), b.Last.Compare(a.Last), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	return groups, others, nil
}

func (g *Group) add(l *Letter) {
	g.Count++
	g.Cause, g.Reason, g.Last = l.Error, l.Reason, l.Stored
	if i, ok := slices.BinarySearch(g.Pools, l.Pool); !ok && len(g.Pools) < maxPools {
		g.Pools = slices.Insert(g.Pools, i, l.Pool)
	}
}

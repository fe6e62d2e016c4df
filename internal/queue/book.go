package queue

// maxParked is how many pull requests may wait at the broker at once. A
// consumer takes 512 of all replicas together and drops the rest silently.
const maxParked = 4

// book keeps the credit of one consumer. It is pure: the source's goroutine
// owns it.
//
//	wanted ──ask──► out ──delivered──► in hand
//	   ▲             │
//	   └────void─────┤ the request was lost, ask anew
//	                 └──returned──► the pool is told
type book struct {
	wanted   int // deliveries the pool has room for and nobody was asked for
	out      int // asked for and not arrived
	requests int // pull requests that may still be waiting at the broker
}

// want adds n deliveries to ask for.
func (b *book) want(n int) { b.wanted += n }

// ask returns the size of the next pull request, 0 if there is to be none now.
// All credit goes into one request, so that under load requests merge.
func (b *book) ask() int {
	if b.wanted <= 0 || b.requests >= maxParked {
		return 0
	}
	n := b.wanted
	b.wanted, b.out = 0, b.out+n
	b.requests++
	return n
}

// delivered notes an arrival from a request of this epoch.
func (b *book) delivered() {
	if b.out > 0 {
		b.out--
	}
	// A request with nothing left is over without a word from the broker.
	b.requests = min(b.requests, b.out)
}

// straggler notes an arrival from a request that was given up: it uses up
// credit that has not been asked for again yet, if there is some.
func (b *book) straggler() {
	if b.wanted > 0 {
		b.wanted--
	}
}

// returned notes that a request has ended with n deliveries left, and says how
// many the pool gets back.
func (b *book) returned(n int) int {
	n = min(n, b.out)
	b.out -= n
	b.requests = min(max(0, b.requests-1), b.out)
	return n
}

// void gives up all requests: what was asked for is wanted again.
func (b *book) void() {
	b.wanted += b.out
	b.out, b.requests = 0, 0
}

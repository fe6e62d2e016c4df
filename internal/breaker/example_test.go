package breaker_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/workerd/workerd/internal/breaker"
)

func Example() {
	b := breaker.New(breaker.Config{ConsecutiveFailures: 2, OpenJitter: -1}, func(c breaker.Change) {
		fmt.Printf("%v -> %v: %v\n", c.From, c.To, c.Reason)
	})
	now := time.Now()
	call := func(healthy bool) error {
		permit, err := b.Acquire(now)
		if err != nil {
			return err
		}
		verdict := breaker.Bad // also if what follows panics
		defer func() { permit.Done(now, verdict, 0) }()
		if !healthy {
			return errors.New("503 Service Unavailable")
		}
		verdict = breaker.Good
		return nil
	}
	fmt.Println(call(false))
	fmt.Println(call(false))
	fmt.Println(call(true))
	now = now.Add(5 * time.Second)
	for range 3 {
		fmt.Println(call(true))
	}
	// Output:
	// 503 Service Unavailable
	// closed -> open: consecutive_failures
	// 503 Service Unavailable
	// breaker is open (consecutive_failures), next try in 5s
	// open -> half_open: wait_over
	// <nil>
	// <nil>
	// half_open -> closed: recovered
	// <nil>
}

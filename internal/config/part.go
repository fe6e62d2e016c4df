package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// bounds of a duration, both allowed.
type bounds struct{ low, high time.Duration }

func within(problem func(field, message string), field string, v time.Duration, b bounds) {
	if v < b.low || v > b.high {
		problem(field, fmt.Sprintf("%s is not allowed, use %s to %s", v, b.low, b.high))
	}
}

func oneOf(problem func(field, message string), field, v string, allowed []string) {
	if !slices.Contains(allowed, v) {
		last := len(allowed) - 1
		problem(field, fmt.Sprintf("%q is not allowed, use %s or %s", v, strings.Join(allowed[:last], ", "), allowed[last]))
	}
}

// prefixed reports the problems of a part under the part's key.
func prefixed(problem func(field, message string), key string) func(field, message string) {
	return func(field, message string) {
		if field == "" {
			problem(key, message)
			return
		}
		problem(join(key, field), message)
	}
}

//go:build race

package pool_test

// manyJobs are fewer under the race detector, which needs ten times as long.
const manyJobs = 20_000

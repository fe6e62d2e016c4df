//go:build !race

package pool_test

const manyJobs = 100_000

//go:build race

package e2e

// raceFlag: what the tests start is as watchful as the tests themselves.
const raceFlag = "-race"

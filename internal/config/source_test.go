package config_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/workerd/workerd/internal/config"
)

// TestLoad_positions: line:col+length of the first error but the lack of pools.
func TestLoad_positions(t *testing.T) {
	for text, want := range map[string]string{
		"nats: {name: é, é: 1}":                                        "1:17+1",
		"# ééé\r\nnats:\r\n  nam: x\r\n":                               "3:3+3",
		"nats:\r  nam: x\r":                                            "2:3+3",
		"# a\u2028# b\u0085nats: {nam: x}":                             "3:8+3",
		"\ufeffnats: {nam: x}":                                         "1:8+3",
		"nats:\n  name: |\n    a\n    b ${NOPE}\n":                     "4:7+7",
		"nats:\n  name: \"a\n    ééé ${NOPE}\"\n":                      "3:9+7",
		"nats: {name: \"\\x24{NOPE}\"}":                                "1:14+12",
		"x-a: &a 5x\ndrain: {timeout: *a}":                             "1:9+2",
		"drain: {timeout: 'it''s'}":                                    "1:18+4",
		"drain: {timeout: \"a\\\"b\"}":                                 "1:18+6",
		"drain:\n  timeout: >\n    5\n    6\n":                         "2:12+1",
		"drain:\n  timeout: a\n    b\n":                                "2:12+1",
		"drain:\n  timeout: &x\n    5\n":                               "2:12+1",
		"nats: {embedded: &x !!bool yes}":                              "1:28+3",
		"log:\n  ? level\n  : loud\n":                                  "3:5+4",
		"drain: {flush_timeout: 10m}\n" + minimal:                      "1:24+3",
		"drain: {}\n" + minimal + "dlq: {max_age: 1d, max_bytes: 1}\n": "4:31+1",
		minimal + "shed:\n  shares: {critical: 0.1, high: 0.1}\n":      "4:3+6",
	} {
		_, problems := load(text)
		i := slices.IndexFunc(problems, func(p config.Problem) bool { return p.Path != "pools" && p.Severity == config.Error })
		if i < 0 {
			t.Errorf("%q: no problem", text)
			continue
		}
		p := problems[i]
		if got := fmt.Sprintf("%d:%d+%d", p.Line, p.Col, p.CaretLen); got != want {
			t.Errorf("%q: %s, want %s (%s)", text, got, want, p)
		}
	}
}

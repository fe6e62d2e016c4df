// Package configs holds the configurations that come with workerd.
package configs

import _ "embed"

// Demo returns configs/demo.yaml, which `workerd dev` runs without a file.
func Demo() []byte { return []byte(demo) }

//go:embed demo.yaml
var demo string

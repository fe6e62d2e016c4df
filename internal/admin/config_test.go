package admin_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/workerd/workerd/internal/admin"
)

func TestConfig_zeroMeansTheDefaults(t *testing.T) {
	want := admin.Config{Listen: "127.0.0.1:8422"}
	if diff := cmp.Diff(want, admin.Config{}.WithDefaults()); diff != "" {
		t.Error(diff)
	}
}

func TestConfig_everyProblemIsReported(t *testing.T) {
	const token = "0123456789abcdef"
	for _, c := range []struct {
		cfg  admin.Config
		want string // fields, in order
	}{
		{admin.Config{}, ""},
		{admin.Config{Listen: "0.0.0.0:8422"}, ""},
		{admin.Config{Listen: ":0", Token: token}, ""},
		{admin.Config{Listen: "unix:/run/x.sock", Pprof: true}, ""},
		{admin.Config{Listen: "unix:"}, "listen"},
		{admin.Config{Listen: "8422"}, "listen"},
		{admin.Config{Listen: "localhost:http"}, "listen"},
		{admin.Config{Listen: "localhost:65536"}, "listen"},
		{admin.Config{Pprof: true}, ""},
		{admin.Config{Listen: "[::1]:1", Pprof: true}, ""},
		{admin.Config{Listen: "0.0.0.0:8422", Pprof: true}, "pprof"},
		{admin.Config{Listen: ":8422", Pprof: true}, "pprof"},
		{admin.Config{Listen: ":8422", Pprof: true, Token: token}, ""},
		{admin.Config{Listen: "x", Token: "short"}, "listen token"},
	} {
		var fields []string
		c.cfg.WithDefaults().Validate(func(field, message string) {
			fields = append(fields, field)
			if message == "" || strings.Contains(message, "short") {
				t.Errorf("%s: message %q", field, message)
			}
		})
		if got := strings.Join(fields, " "); got != c.want {
			t.Errorf("%+v: problems with %q, want %q", c.cfg, got, c.want)
		}
	}
}

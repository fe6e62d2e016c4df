package secret_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/workerd/workerd/internal/secret"
)

func TestSecret_neverPrints(t *testing.T) {
	const canary = "hunter2-canary"
	s := secret.Secret(canary)
	holder := struct{ Password secret.Secret }{s}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "password", s, "holder", holder)
	asJSON, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	printed := []string{
		fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q %x %d", s, s, s, s, s, s, s), fmt.Sprintf("%v %+v %#v", holder, holder, holder),
		string(asJSON), logged.String(),
	}
	for _, p := range printed {
		if strings.Contains(p, canary) || strings.Contains(p, fmt.Sprintf("%x", canary)) {
			t.Errorf("printed the secret: %s", p)
		}
	}
	if s.Reveal() != canary {
		t.Errorf("Reveal() = %q", s.Reveal())
	}
	if secret.Secret("").String() != "" {
		t.Error("an unset secret looks set")
	}
}

package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/workerd/workerd/internal/secret"
)

// guard lets those in who may do more than look: with the token if there is
// one, otherwise on a loopback address and not on behalf of another web page.
type guard struct {
	token    secret.Secret
	loopback bool
}

func (g guard) wrap(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case crossSite(r):
			fail(w, r, http.StatusForbidden, "requests of other web pages are not answered")
		case g.token == "" && !g.loopback:
			fail(w, r, http.StatusForbidden, "set admin.token to use this from another machine, or listen on a loopback address")
		case g.token != "" && !g.knows(r.Header.Get("Authorization")):
			w.Header().Set("WWW-Authenticate", `Bearer realm="workerd"`)
			fail(w, r, http.StatusUnauthorized, "send the header Authorization: Bearer <admin.token>")
		default:
			h(w, r)
		}
	})
}

// knows compares hashes, so that neither the length nor the beginning of the
// token shows in the time it takes.
func (g guard) knows(authorization string) bool {
	scheme, token, _ := strings.Cut(authorization, " ")
	want, got := sha256.Sum256([]byte(g.token.Reveal())), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

// crossSite tells whether a browser made the request for another site's page.
func crossSite(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site != "" && site != "same-origin" && site != "none"
}

package httptarget_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/workerd/workerd/internal/target/httptarget"
)

const goodURL = "http://127.0.0.1:8080/jobs"

// problems returns the fields that Validate complains of, with the messages.
func problems(c httptarget.Config) map[string]string {
	found := map[string]string{}
	c.WithDefaults().Validate(func(field, message string) { found[field] = message })
	return found
}

func TestConfig_defaultsAreValid(t *testing.T) {
	got := httptarget.Config{URL: goodURL}.WithDefaults()
	want := httptarget.Config{URL: goodURL, Method: "POST", MaxResponse: 1 << 20, MaxRetryAfter: 5 * time.Minute}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if again := got.WithDefaults(); !reflect.DeepEqual(got, again) {
		t.Error("defaults of defaults differ")
	}
	if p := problems(got); len(p) > 0 {
		t.Error(p)
	}
}

func TestConfig_acceptsGoodURLs(t *testing.T) {
	for _, u := range []string{
		goodURL, "https://example.com", "http://[::1]:8080/", "http://[fe80::1%25eth0]/x", "http://example.com/a?key=v", "HTTP://example.com", "http://user-service.ns.svc:80",
	} {
		if p := problems(httptarget.Config{URL: u}); len(p) > 0 {
			t.Errorf("%s: %v", u, p)
		}
	}
}

func TestConfig_refusesBadURLsAndTellsNoSecret(t *testing.T) {
	for _, u := range []string{
		"", "example.com/x", "/jobs", "//example.com", "ftp://example.com", "http:", "http://", "http://:80", "http:example.com",
		"http://a:" + canary + "@b", "http://a@b", "http://a\\b", "http://a b", "http://a/\r\nX: y", "http://a/\x00", "http://{host}/x", "http://a/{subject[2]}",
		"http://a/#fragment", "http://a:0", "http://a:99999", "http://a:", "http://a:x", "http://a:1:2?" + canary, "unix:/run/x.sock", "http://%zz/" + canary,
	} {
		p := problems(httptarget.Config{URL: u})
		if p["url"] == "" || len(p) != 1 {
			t.Errorf("%q: %v", u, p)
		}
		if strings.Contains(p["url"], canary) {
			t.Errorf("%q: the message tells a secret: %s", u, p["url"])
		}
	}
}

func TestConfig_reportsAllProblemsAtOnce(t *testing.T) {
	got := problems(httptarget.Config{
		URL: "nowhere", Method: "CON NECT", MaxResponse: -1, MaxIdleConns: -1, MaxRetryAfter: -time.Second,
		Headers: map[string]string{
			"Host": "x", "content-length": "1", "Workerd-Pool": "x", "Nats-Msg-Id": "x", "Proxy-Authorization": "x", "idempotency-key": "x",
			"X-A": "1", "x-a": "2", "a b": "x", "": "x", "X-Break": canary + "\r\n", "Expect": "100-continue", "Authorization": "fine",
		},
		ForwardHeaders: []string{"X-Good", "ce-*", "Cookie", "authorization", "X-Forwarded-For", "Nats-Msg-Id", "te", "*", "a*b", "", "a b", "x-A"},
		Classify: []httptarget.Rule{
			{Status: "409", Class: "success"},
			{Status: "4xx", Class: "neutral"},
			{Status: "500-504", Class: "failure"},
			{Status: "9xx", Class: "success"},
			{Status: "200", Class: "timeout"},
			{Status: "", Class: ""},
		},
	})
	want := []string{
		"classify[3].status", "classify[4].class", "classify[5].class", "classify[5].status",
		"forward_headers[10]", "forward_headers[11]", "forward_headers[2]", "forward_headers[3]", "forward_headers[4]", "forward_headers[5]",
		"forward_headers[6]", "forward_headers[7]", "forward_headers[8]", "forward_headers[9]",
		"headers.", "headers.Expect", "headers.Host", "headers.Nats-Msg-Id", "headers.Proxy-Authorization", "headers.Workerd-Pool", "headers.X-Break",
		"headers.a b", "headers.content-length", "headers.idempotency-key", "headers.x-a",
		"max_idle_conns", "max_response", "max_retry_after", "method", "url",
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("%s\n%v", diff, got)
	}
	for field, message := range got {
		if message == "" || strings.Contains(message, canary) {
			t.Errorf("%s: message %q", field, message)
		}
	}
}

func TestNew_refusesAnInvalidConfig(t *testing.T) {
	_, err := httptarget.New(httptarget.Config{URL: "ftp://a", Method: "TRACE"})
	if err == nil || !strings.Contains(err.Error(), "url: ") || !strings.Contains(err.Error(), "method: ") {
		t.Error(err)
	}
}

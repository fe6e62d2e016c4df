package dlq_test

import (
	"bufio"
	"net"
	"strings"
	"testing"
)

// raw speaks the protocol of NATS itself, as no client would.
func raw(t *testing.T, url, command string) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("CONNECT {\"headers\":true,\"verbose\":false}\r\n" + command + "PING\r\n")); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "PONG") {
			return
		}
		if strings.HasPrefix(line, "-ERR") {
			t.Fatal(line)
		}
	}
}

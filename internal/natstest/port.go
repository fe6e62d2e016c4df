package natstest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports below those that the kernel gives to whoever wants any: one of these may
// be anybody's as soon as it is free.
const firstPort, lastPort = 20000, 32000

// FreePort returns a port of 127.0.0.1 on which nobody listens, and hardly
// anybody will before the caller does.
func FreePort() (int, error) {
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("no free port found")
}

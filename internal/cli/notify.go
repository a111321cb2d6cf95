package cli

import (
	"context"
	"net"
	"os"
	"strconv"
	"time"
)

// notifier tells systemd how a service is, as sd_notify(3) says it: words in a datagram to the socket that the environment names.
// Without one nobody is told.
type notifier struct{ address string }

// notifierOf is that of the environment, which programs that are started do not get.
func notifierOf() notifier {
	n := notifier{address: os.Getenv("NOTIFY_SOCKET")}
	_ = os.Unsetenv("NOTIFY_SOCKET") // an error is of a name that none has
	return n
}

// tell says how the service is. That nobody hears it is no reason not to work.
func (n notifier) tell(state string) {
	if n.address == "" {
		return
	}
	address := &net.UnixAddr{Name: n.address, Net: "unixgram"} // an abstract one begins with @
	connection, err := net.DialUnix("unixgram", nil, address)
	if err != nil {
		return
	}
	defer connection.Close()
	_, _ = connection.Write([]byte(state))
}

// watchdog tells that the service is alive, twice in the time that systemd gives it, as long as it is.
func (n notifier) watchdog(ctx context.Context, alive func() bool) {
	limit, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid := os.Getenv("WATCHDOG_PID"); err != nil || limit <= 0 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return
	}
	tick := time.NewTicker(max(time.Duration(limit)*time.Microsecond/2, time.Millisecond))
	defer tick.Stop()
	for ctx.Err() == nil {
		if alive() {
			n.tell("WATCHDOG=1")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

package cli

import (
	"context"
	"net"
	"path/filepath"
	"testing"
)

// systemd hears what is told, and signs of life only as long as there is life.
func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	heard, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	hear := func() string {
		text := make([]byte, 200)
		n, err := heard.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(text[:n])
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	notify := notifierOf()
	notify.tell("READY=1")
	if got := hear(); got != "READY=1" {
		t.Errorf("heard %q", got)
	}
	ctx, end := context.WithCancel(t.Context())
	looked := 0
	notify.watchdog(ctx, func() bool {
		if looked++; looked == 4 {
			end()
		}
		return looked == 1 || looked >= 3
	})
	for range 3 { // the second time there was no life
		if got := hear(); got != "WATCHDOG=1" {
			t.Errorf("heard %q", got)
		}
	}
	notify.tell("STOPPING=1")
	if got := hear(); got != "STOPPING=1" {
		t.Errorf("heard %q", got)
	}
	if again := notifierOf(); again.address != "" {
		t.Errorf("programs that are started would tell too: %q", again.address)
	}
}

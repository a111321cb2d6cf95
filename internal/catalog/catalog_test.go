package catalog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"ferry/internal/backup"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(runChild())
	}
	code := m.Run()
	if postgresHere != nil {
		postgresHere.end()
	}
	os.Exit(code)
}

// clock is a clock that tests move.
type clock struct {
	mutex sync.Mutex
	at    time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 3, 1, 22, 0, 0, 123456789, time.UTC)} }

func (c *clock) now() time.Time {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.at = c.at.Add(d)
}

// place is a database that can be opened more than once.
type place struct {
	location string
	postgres bool
}

func (p place) open(t testing.TB, c *clock) *Catalog {
	t.Helper()
	catalog, err := Open(context.Background(), p.location, Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := catalog.Close(); err != nil {
			t.Error(err)
		}
	})
	return catalog
}

// onBoth runs a test on SQLite and on PostgreSQL, each with an empty database.
func onBoth(t *testing.T, test func(t *testing.T, at place)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, place{location: filepath.Join(t.TempDir(), "catalog.db")})
	})
	t.Run("postgres", func(t *testing.T) {
		test(t, place{location: postgresURL(t), postgres: true})
	})
}

// opened is onBoth with the catalog open.
func opened(t *testing.T, test func(t *testing.T, c *Catalog, clock *clock)) {
	onBoth(t, func(t *testing.T, at place) {
		clock := newClock()
		test(t, at.open(t, clock), clock)
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func machine(n int) backup.Machine {
	return backup.Machine{
		Key:  backup.NewMachineKey(backup.PlatformProxmox, fmt.Sprint(100+n), fmt.Sprintf("00000000-0000-4000-8000-%012d", n), ""),
		Name: fmt.Sprintf("vm%d", n),
	}
}

func itoa(n int64) string { return fmt.Sprint(n) }

func pointID(machineNumber, n int) backup.PointID {
	return backup.NewPointID(machine(machineNumber).Key, fmt.Sprint(n))
}

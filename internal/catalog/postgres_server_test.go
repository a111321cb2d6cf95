package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
)

// postgresServer is a PostgreSQL of the tests' own, in a temporary folder, reachable by a socket in it only. It lives as long as
// the tests do.
type postgresServer struct {
	folder string
	stop   io.Closer
	ended  chan error
	admin  *sql.DB
	log    *os.File
}

var (
	postgresOnce sync.Once
	postgresHere *postgresServer
	postgresErr  error
	schemas      atomic.Int64
)

const postgresPort = "54329" // names the socket; no port is opened

// errNoPostgres: it is not installed.
type errNoPostgres struct{}

func (errNoPostgres) Error() string {
	return "PostgreSQL is not installed (Debian: postgresql; `make deps` as root installs it)"
}

// postgresURL makes an empty schema and returns where it is. Without PostgreSQL the test fails, or is skipped with -short.
func postgresURL(t testing.TB) string {
	t.Helper()
	postgresOnce.Do(func() { postgresHere, postgresErr = startPostgres() })
	if _, missing := postgresErr.(errNoPostgres); missing && testing.Short() {
		t.Skip(postgresErr)
	}
	if postgresErr != nil {
		t.Fatal(postgresErr)
	}
	schema := fmt.Sprintf("catalog_%d", schemas.Add(1))
	if _, err := postgresHere.admin.Exec("CREATE SCHEMA " + schema); err != nil {
		t.Fatal(err)
	}
	return postgresHere.url(schema)
}

// url of a schema.
func (s *postgresServer) url(schema string) string {
	query := url.Values{"host": {s.folder}, "port": {postgresPort}, "user": {"ferry"}, "search_path": {schema}}
	return "postgres:///postgres?" + query.Encode()
}

// postgresTool finds a program of PostgreSQL. Debian keeps those of the server out of PATH, by version.
func postgresTool(name string) (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	sort.Slice(found, func(i, j int) bool { return postgresVersion(found[i]) > postgresVersion(found[j]) })
	if len(found) > 0 {
		return found[0], nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", errNoPostgres{}
	}
	return path, nil
}

func postgresVersion(path string) int {
	version, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return version
}

// postgresUser is whom the server runs as: PostgreSQL refuses to run as root. Nil: as whoever runs the tests.
func postgresUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

func startPostgres() (*postgresServer, error) {
	initdb, err := postgresTool("initdb")
	if err != nil {
		return nil, err
	}
	program, err := postgresTool("postgres")
	if err != nil {
		return nil, err
	}
	account, err := postgresUser()
	if err != nil {
		return nil, err
	}
	s := &postgresServer{ended: make(chan error, 1)}
	if s.folder, err = os.MkdirTemp("/tmp", "ferry-postgres-"); err != nil { // short: a socket's path may have 107 bytes
		return nil, err
	}
	if s.log, err = os.Create(filepath.Join(s.folder, "log")); err != nil {
		return nil, err
	}
	if account != nil {
		if err := os.Chown(s.folder, int(account.Uid), int(account.Gid)); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(s.folder, "data")
	// Ordered as people do, which is not as bytes are: what comes to rely on the order of text shows here.
	arguments := []string{"-D", data, "-U", "ferry", "-A", "trust", "-E", "UTF8", "--no-sync"}
	if help, _ := exec.Command(initdb, "--help").Output(); strings.Contains(string(help), "--icu-locale") {
		arguments = append(arguments, "--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8")
	}
	if output, err := s.command(account, initdb, arguments...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, output)
	}
	// The shell ends the server by its process id when the tests close the pipe, or end in any way, and removes what it had.
	server := s.command(account, "/bin/sh", "-c", `"$@" & server=$!; read -r _; kill -INT $server; wait $server; rm -rf "$0"`, s.folder, program, "-D", data, "-p", postgresPort,
		"-c", "listen_addresses=", "-c", "unix_socket_directories="+s.folder, "-c", "fsync=off", "-c", "max_connections=200")
	server.Stdout, server.Stderr = s.log, s.log
	if s.stop, err = server.StdinPipe(); err != nil {
		return nil, err
	}
	if err := server.Start(); err != nil {
		return nil, err
	}
	go func() { s.ended <- server.Wait() }()
	return s, s.connect()
}

func (s *postgresServer) command(account *syscall.Credential, program string, arguments ...string) *exec.Cmd {
	command := exec.Command(program, arguments...)
	command.Dir = s.folder
	command.Env = append(os.Environ(), "LC_MESSAGES=C", "HOME="+s.folder)
	command.SysProcAttr = &syscall.SysProcAttr{Credential: account}
	return command
}

// connect waits until the server answers.
func (s *postgresServer) connect() error {
	var err error
	if s.admin, err = sql.Open("pgx", s.url("public")); err != nil {
		return err
	}
	deadline := time.Now().Add(time.Minute)
	for {
		err := s.admin.PingContext(context.Background())
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(s.log.Name())
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, log)
		}
		time.Sleep(20 * time.Millisecond) // another program's start has nothing to wait on
	}
}

// end stops the server and removes what it had.
func (s *postgresServer) end() {
	s.admin.Close()
	s.stop.Close()
	<-s.ended
	s.log.Close()
	os.RemoveAll(s.folder)
}

var _ = stdlib.GetDefaultDriver // registers "pgx"

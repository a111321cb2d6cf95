//go:build integration

// Package s3 tests storage in a bucket against a real S3 server: versitygw, which the test starts.
package s3

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The keys of the server.
var (
	accessKey = "ferry-test"
	secretKey = "ferry-test-secret"
)

// envServer is the HOST:PORT of an S3 server that runs already and is to be tested against instead, with the keys in
// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. The tests make buckets there, and leave them.
const envServer = "FERRY_TEST_S3"

// server is a running versitygw.
type server struct {
	address string
	client  *minio.Client
}

// scratch is a folder for what all tests share.
var scratch string

// shared is the server that all tests use, each with buckets of its own.
var shared *server

func TestMain(m *testing.M) {
	if file := os.Getenv(envMeasure); file != "" {
		os.Exit(measure(file, os.Args[1:]))
	}
	os.Exit(run(m))
}

// envMeasure makes this program run another and write the memory that it took to the file named: a child's peak begins with
// what its parent has in memory, and this one, just begun, has little.
const envMeasure = "FERRY_TEST_MEASURE"

func measure(file string, args []string) int {
	command := exec.Command(args[0], args[1:]...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	_ = command.Run()
	usage := command.ProcessState.SysUsage().(*syscall.Rusage)
	if err := os.WriteFile(file, []byte(strconv.FormatInt(usage.Maxrss<<10, 10)), 0o600); err != nil {
		return 1
	}
	return command.ProcessState.ExitCode()
}

func run(m *testing.M) int {
	folder, err := os.MkdirTemp("/var/tmp", "ferry-s3-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	scratch = folder
	started, stop, err := running(folder)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer stop()
	shared = started
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": secretKey, "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "",
		"AWS_CONFIG_FILE": filepath.Join(folder, "none"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(folder, "none"),
	} {
		os.Setenv(name, value)
	}
	return m.Run()
}

// running is the server that the environment names, or versitygw, started.
func running(folder string) (*server, func(), error) {
	address := os.Getenv(envServer)
	if address == "" {
		program, err := findServer()
		if err != nil {
			return nil, nil, err
		}
		for range 5 { // between looking for a free port and listening on it, another program may have taken it
			if s, stop, err := start(program, folder); err == nil || !strings.Contains(err.Error(), "address already in use") {
				return s, stop, err
			}
		}
		return start(program, folder)
	}
	accessKey, secretKey = os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	client, err := connect(address)
	return &server{address: address, client: client}, func() {}, err
}

func connect(address string) (*minio.Client, error) {
	return minio.New(address, &minio.Options{Creds: credentials.NewStaticV4(accessKey, secretKey, ""), Region: "us-east-1", MaxRetries: 1})
}

// findServer finds the program that `make test/s3` builds.
func findServer() (string, error) {
	matches, err := filepath.Glob("../../.tools/versitygw-*")
	if err == nil && len(matches) > 0 {
		return filepath.Abs(matches[len(matches)-1])
	}
	if found, err := exec.LookPath("versitygw"); err == nil {
		return found, nil
	}
	return "", fmt.Errorf("versitygw is not here; make deps builds it")
}

// start runs the server on a free loopback port and waits until it answers.
func start(program, folder string) (*server, func(), error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	address := listener.Addr().String()
	listener.Close()
	for _, name := range []string{"data", "versions"} {
		if err := os.MkdirAll(filepath.Join(folder, name), 0o700); err != nil {
			return nil, nil, err
		}
	}
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	command := exec.Command(program, "--port", address, "--keep-alive", "--quiet", "posix", "--versioning-dir", filepath.Join(folder, "versions"), filepath.Join(folder, "data"))
	command.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+accessKey, "ROOT_SECRET_KEY="+secretKey, "ROOT_ACCESS_KEY_ID="+accessKey, "ROOT_SECRET_ACCESS_KEY="+secretKey)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return nil, nil, err
	}
	ended := make(chan struct{})
	go func() { _ = command.Wait(); close(ended) }()
	stop := func() {
		_ = command.Process.Kill()
		<-ended
	}
	client, err := connect(address)
	if err != nil {
		stop()
		return nil, nil, err
	}
	deadline := time.After(30 * time.Second)
	for {
		if answers(client) {
			return &server{address: address, client: client}, stop, nil
		}
		select {
		case <-ended:
			said, _ := os.ReadFile(log.Name())
			return nil, nil, fmt.Errorf("versitygw ended: %s", said)
		case <-deadline:
			stop()
			return nil, nil, fmt.Errorf("versitygw does not answer at %s", address)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// answers is true if the server does that has the keys: another one may have taken its port.
func answers(client *minio.Client) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := client.ListBuckets(ctx)
	return err == nil
}

// kind of bucket.
type kind int

const (
	plain kind = iota
	versioned
	locking
)

// bucket makes an empty bucket of a kind and returns its name.
func (s *server) bucket(t *testing.T, k kind) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	if len(name) > 40 {
		name = name[len(name)-40:]
	}
	name = strings.Trim(fmt.Sprintf("%s-%d", name, time.Now().UnixNano()%1e9), "-")
	ctx := context.Background()
	if err := s.client.MakeBucket(ctx, name, minio.MakeBucketOptions{ObjectLocking: k == locking}); err != nil {
		t.Fatalf("making bucket %s: %v", name, err)
	}
	if k == versioned {
		if err := s.client.EnableVersioning(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// location of a repository in a bucket.
func (s *server) location(bucket string) string {
	return "s3+http://" + s.address + "/" + bucket + "/vault"
}

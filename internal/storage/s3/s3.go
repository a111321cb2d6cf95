// Package s3 is a store in a bucket of an S3 server: Amazon's, or another that has conditional writes.
//
// What a person needs to know is in docs/s3.md. How the promises of package storage are kept:
//
//   - Create if absent: If-None-Match: * on the single put or on the end of the multipart upload. Probe finds out
//     whether the server heeds it. Each write carries a random mark in the object's metadata, so that after a lost
//     answer it shows whether the object that is there is this write's.
//   - Lost answers and overload: see retry and classOf.
//   - Versions: in a bucket that keeps them the oldest version of a name is the object, whatever was put or deleted
//     later, for all names but those below marks/. Delete removes all versions.
//   - Memory: an object that is written is cut into parts of 8 MiB; at most uploads parts are on their way at once.
package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/storage"
)

// Store is a storage.Store in a bucket.
type Store struct {
	location Location
	core     *minio.Core
	client   *minio.Client
	counter  *counter
	// reached is true once the server has answered.
	reached atomic.Bool
	// tampered is true once a name was found of which what is there now is not the object. From then on no name is
	// trusted before its versions were looked at.
	tampered atomic.Bool
	// pause is before the second attempt of a request.
	pause time.Duration
	// uploads has a place for each part that may be on its way.
	uploads chan struct{}
	chunks  sync.Pool

	mu sync.Mutex
	// oldest are the versions to read of names that were looked at: empty where it is the one that is there now.
	oldest map[string]string
	// marks are the versions of marks that this store wrote last.
	marks map[string]string
	// lock says until when what is published is locked.
	lockHow   minio.RetentionMode
	lockUntil func(name string) time.Time
}

var _ storage.Unbounded = (*Store)(nil)

// Options of opening a store.
type Options struct {
	// Transport carries the requests; nil means one made for the purpose.
	Transport http.RoundTripper
	// Credentials are those to use, as an AWS credentials file has them; nil: those of the environment.
	Credentials []byte
	// Send and Receive are asked before bytes cross the network; nil: as fast as it goes.
	Send, Receive storage.Pace
	// ReceiveRate is how many bytes a second Receive lets pass at the moment, 0 any; nil: that is not known.
	ReceiveRate func() int64
	// Pause before a request is tried for the second time; 0 means 100 ms.
	Pause time.Duration
}

const (
	// marksPrefix begins the names that may be overwritten.
	marksPrefix = "marks/"
	// parallelReads at once pay off: with 4 MiB each, 50 ms away, that fills a link of 5 Gbit/s.
	parallelReads = 8
	// parallelUploads bounds the memory for parts on their way.
	parallelUploads = 6
)

// Open opens the store at a location. Nothing is asked of the server yet.
func Open(location Location, options Options) (*Store, error) {
	l := location.withDefaults()
	var keys *credentials.Credentials
	var err error
	if options.Credentials != nil {
		keys, err = givenKeys(l.Profile, options.Credentials)
	} else {
		keys, err = findKeys(l.Profile)
	}
	if err != nil {
		return nil, err
	}
	transport := options.Transport
	if transport == nil {
		made, err := minio.DefaultTransport(!l.Insecure)
		if err != nil {
			return nil, err
		}
		made.MaxIdleConnsPerHost, made.MaxConnsPerHost = 64, 64
		made.ResponseHeaderTimeout = patience
		made.DisableCompression = true
		transport = made
	}
	if options.Send != nil || options.Receive != nil {
		transport = &paced{RoundTripper: transport, send: options.Send, receive: options.Receive, rate: options.ReceiveRate}
	}
	counting := &counter{RoundTripper: transport}
	core, err := minio.NewCore(l.Endpoint, &minio.Options{
		Creds: keys, Secure: !l.Insecure, Transport: counting, Region: l.Region, MaxRetries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", location.text, err)
	}
	s := &Store{
		location: l, core: core, client: core.Client, counter: counting, pause: options.Pause,
		uploads: make(chan struct{}, parallelUploads), oldest: map[string]string{}, marks: map[string]string{},
	}
	if s.pause == 0 {
		s.pause = defaultPause
	}
	s.chunks.New = func() any { return new([chunkSize]byte) }
	return s, nil
}

// findKeys looks for keys where Amazon's own tools do. Where there are none is an error: nobody keeps backups in a bucket
// that everyone may write to.
func findKeys(profile string) (*credentials.Credentials, error) {
	providers := []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{Profile: profile}, &credentials.IAM{}}
	for _, provider := range providers {
		if _, isRole := provider.(*credentials.IAM); isRole && !hasRole() {
			continue
		}
		keys := credentials.New(provider)
		value, err := keys.GetWithContext(&credentials.CredContext{Client: http.DefaultClient})
		if err == nil && value.AccessKeyID != "" && value.SecretAccessKey != "" {
			return keys, nil
		}
	}
	return nil, &backup.Error{
		Offset: backup.NoOffset, Err: errors.New("no keys for S3 were found"),
		Hint: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE to a profile of ~/.aws/credentials (docs/s3.md)",
	}
}

// givenKeys reads the keys of a profile from the content of an AWS credentials file. The file is one in memory: the library
// reads files only.
func givenKeys(profile string, content []byte) (*credentials.Credentials, error) {
	descriptor, err := unix.MemfdCreate("credentials", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(descriptor), "credentials")
	defer file.Close()
	if _, err := file.Write(content); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("/proc/self/fd/%d", descriptor)
	value, err := credentials.New(&credentials.FileAWSCredentials{Filename: name, Profile: profile}).GetWithContext(&credentials.CredContext{})
	if err != nil || value.AccessKeyID == "" || value.SecretAccessKey == "" {
		return nil, &backup.Error{
			Offset: backup.NoOffset, Err: errors.New("the credentials given have no keys for S3"),
			Hint: "they are to look like ~/.aws/credentials: [default], aws_access_key_id = …, aws_secret_access_key = …",
		}
	}
	return credentials.NewStaticV4(value.AccessKeyID, value.SecretAccessKey, value.SessionToken), nil
}

// Location is what the person typed.
func (s *Store) Location() string { return s.location.text }

// ParallelReads at once pay off.
func (s *Store) ParallelReads() int { return parallelReads }

// ParallelWrites is one object that is written to: its parts are sent several at once. Small objects are requests like reads.
func (s *Store) ParallelWrites() (written, put int) { return 1, parallelReads }

// GrowsOnDemand is true: a bucket ends at a quota, if at all.
func (s *Store) GrowsOnDemand() bool { return true }

// Close releases idle connections.
func (s *Store) Close() error {
	if idle, ok := s.counter.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		idle.CloseIdleConnections()
	}
	return nil
}

func (s *Store) key(name string) string { return s.location.Prefix + name }

func immutable(name string) bool { return !strings.HasPrefix(name, marksPrefix) }

// check is what every method with a name asks first.
func check(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return storage.CheckName(name)
}

// Put creates an object in one request.
func (s *Store) Put(ctx context.Context, name string, content []byte) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	return s.putNew(ctx, name, &body{chunks: [][]byte{content}, size: int64(len(content))})
}

// putNew creates an object unless its name is taken. After a lost answer the name may be taken by the object itself.
func (s *Store) putNew(ctx context.Context, name string, content *body) error {
	options, mark := s.newOptions(name)
	options.SetMatchETagExcept("*")
	sums := content.sums(options.Mode != "")
	ambiguous := false
	err := s.retry(ctx, content.size, func(ctx context.Context) error {
		_, err := s.core.PutObject(ctx, s.location.Bucket, s.key(name), content.reader(), content.size, sums.md5, sums.sha256, options)
		ambiguous = ambiguous || err != nil && classOf(err) == temporary
		return err
	})
	if ambiguous && isStatus(err, http.StatusPreconditionFailed) {
		err = s.own(ctx, name, mark, err)
	}
	return s.describe("writing", name, err)
}

// markKey is the metadata by which a write knows its object again.
const markKey = "Ferry-Write"

// newOptions are those of a new object, and its mark.
func (s *Store) newOptions(name string) (minio.PutObjectOptions, string) {
	mark := randomMark()
	options := minio.PutObjectOptions{UserMetadata: map[string]string{markKey: mark}, DisableContentSha256: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lockUntil != nil {
		if until := s.lockUntil(name); !until.IsZero() {
			options.Mode, options.RetainUntilDate = s.lockHow, until.UTC().Truncate(time.Second)
		}
	}
	return options, mark
}

// own returns nil if the object of that name has this write's mark, and else the error that led here.
func (s *Store) own(ctx context.Context, name, mark string, err error) error {
	there, statErr := s.head(ctx, name, "")
	if statErr == nil && there.UserMetadata[markKey] == mark {
		return nil
	}
	if statErr != nil && !isStatus(statErr, http.StatusNotFound) {
		return statErr
	}
	return err
}

// Overwrite replaces an object or creates it. In a bucket that keeps versions the one that it replaces goes.
func (s *Store) Overwrite(ctx context.Context, name string, content []byte) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	whole := &body{chunks: [][]byte{content}, size: int64(len(content))}
	var info minio.UploadInfo
	err := s.retry(ctx, whole.size, func(ctx context.Context) (err error) {
		info, err = s.core.PutObject(ctx, s.location.Bucket, s.key(name), whole.reader(), whole.size, "", hex.EncodeToString(sum[:]), minio.PutObjectOptions{DisableContentSha256: true})
		return err
	})
	if err != nil {
		return s.describe("writing", name, err)
	}
	if info.VersionID != "" {
		s.dropReplaced(ctx, name, info.VersionID)
	}
	return nil
}

// dropReplaced removes the version of a mark that a new one replaced. One too many costs space only.
func (s *Store) dropReplaced(ctx context.Context, name, now string) {
	s.mu.Lock()
	before, known := s.marks[name]
	s.marks[name] = now
	s.mu.Unlock()
	if known {
		_ = s.removeVersion(ctx, name, before)
		return
	}
	versions, err := s.versions(ctx, name)
	if err != nil {
		return
	}
	for _, v := range versions {
		if v.id != now && !v.latest {
			_ = s.removeVersion(ctx, name, v.id)
		}
	}
}

// Stat describes an object. Modified has whole seconds.
func (s *Store) Stat(ctx context.Context, name string) (storage.Info, error) {
	if err := check(ctx, name); err != nil {
		return storage.Info{}, err
	}
	info, err := s.find(ctx, name)
	if err != nil {
		return storage.Info{}, s.describe("looking at", name, err)
	}
	return storage.Info{Name: name, Size: info.Size, Modified: info.LastModified}, nil
}

// find describes the version of an object that is to be read.
func (s *Store) find(ctx context.Context, name string) (minio.ObjectInfo, error) {
	info, err := s.head(ctx, name, s.oldVersion(ctx, name))
	if err == nil || !s.mayBeHidden(name, err) {
		return info, err
	}
	version, found, listErr := s.oldestVersion(ctx, name)
	if listErr != nil {
		return info, listErr
	}
	if !found {
		return info, err
	}
	return s.head(ctx, name, version)
}

// head asks what an object is. Answers to a HEAD have no body: what a 404 means, a GET is asked.
func (s *Store) head(ctx context.Context, name, version string) (minio.ObjectInfo, error) {
	var info minio.ObjectInfo
	err := s.retry(ctx, 0, func(ctx context.Context) (err error) {
		info, err = s.client.StatObject(ctx, s.location.Bucket, s.key(name), minio.StatObjectOptions{VersionID: version})
		if !isStatus(err, http.StatusNotFound) {
			return err
		}
		content, _, _, why := s.core.GetObject(ctx, s.location.Bucket, s.key(name), minio.GetObjectOptions{VersionID: version})
		if why == nil {
			content.Close()
			return errNoServer // it is there
		}
		return why
	})
	info.LastModified = info.LastModified.UTC().Truncate(time.Second)
	return info, err
}

package s3

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/ini.v1"

	"ferry/internal/backup"
	"ferry/internal/storage"
)

// Location says where a store lies. ParseLocation makes one from what a person typed.
type Location struct {
	Bucket string
	// Prefix of all keys: empty, or ending at a slash.
	Prefix string
	// Endpoint is host or host:port; empty means Amazon's.
	Endpoint string
	// Insecure speaks HTTP instead of HTTPS.
	Insecure bool
	// Region of the bucket; empty means: ask the environment, then the server.
	Region string
	// Profile of the AWS configuration files; empty means what the environment says.
	Profile string
	text    string
}

// IsLocation is true for what ParseLocation is for, well formed or not.
func IsLocation(text string) bool {
	scheme, _, found := strings.Cut(text, "://")
	return found && (scheme == "s3" || strings.HasPrefix(scheme, "s3+"))
}

// ParseLocation parses
//
//	s3://BUCKET/PREFIX?endpoint=URL&region=REGION&profile=NAME
//	s3+https://HOST[:PORT]/BUCKET/PREFIX?region=…   the same with the endpoint in front; s3+http for tests
//
// Keys have no place in it: they would stand in process lists and logs.
func ParseLocation(text string) (Location, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Location{}, errors.New("this is not a location of the form s3://BUCKET/PREFIX?endpoint=URL") // the text may hold a key
	}
	if u.User != nil {
		return Location{}, &backup.Error{
			Offset: backup.NoOffset, Err: errors.New("the location of an S3 bucket must not hold keys: others see them in process lists and logs"),
			Hint: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (docs/s3.md)",
		}
	}
	l := Location{text: text}
	path := strings.Trim(u.Path, "/")
	switch u.Scheme {
	case "s3":
		l.Bucket = u.Host
	case "s3+http", "s3+https":
		l.Endpoint, l.Insecure = u.Host, u.Scheme == "s3+http"
		l.Bucket, path, _ = strings.Cut(path, "/")
	default:
		return Location{}, fmt.Errorf("%s: not s3, s3+https or s3+http", u.Scheme)
	}
	for name, values := range u.Query() {
		value := values[len(values)-1]
		switch name {
		case "endpoint":
			if err := l.setEndpoint(value); err != nil {
				return Location{}, err
			}
		case "region":
			l.Region = value
		case "profile":
			l.Profile = value
		default:
			return Location{}, fmt.Errorf("the location of an S3 bucket has no option %s; there are endpoint, region and profile", name)
		}
	}
	if l.Bucket == "" || u.Fragment != "" {
		return Location{}, errors.New("the location names no bucket: s3://BUCKET/PREFIX?endpoint=URL")
	}
	if path != "" {
		if err := storage.CheckName(path); err != nil {
			return Location{}, fmt.Errorf("the prefix in the location: %w", err)
		}
		if len(path) > maxPrefix {
			return Location{}, fmt.Errorf("the prefix in the location is longer than %d bytes", maxPrefix)
		}
		l.Prefix = path + "/"
	}
	return l, nil
}

// maxPrefix leaves room for the longest name: keys have at most 1024 bytes.
const maxPrefix = 1024 - storage.MaxNameLength - 1

func (l *Location) setEndpoint(value string) error {
	u, err := url.Parse(value)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return errors.New("endpoint in the location is not of the form https://HOST[:PORT]")
	}
	if l.Endpoint != "" {
		return errors.New("the location names two endpoints")
	}
	l.Endpoint, l.Insecure = u.Host, u.Scheme == "http"
	return nil
}

// String is the location as it was given.
func (l Location) String() string { return l.text }

// Whole is the location with what the environment said of it: the endpoint and the region, as far as these are known before the
// server is asked.
func (l Location) Whole() string {
	with := l.withDefaults()
	var options []string
	if with.Endpoint != amazonEndpoint {
		scheme := "https"
		if with.Insecure {
			scheme = "http"
		}
		options = append(options, "endpoint="+scheme+"://"+with.Endpoint)
	}
	if with.Region != "" {
		options = append(options, "region="+url.QueryEscape(with.Region))
	}
	if l.Profile != "" {
		options = append(options, "profile="+url.QueryEscape(l.Profile))
	}
	whole := strings.TrimSuffix("s3://"+with.Bucket+"/"+with.Prefix, "/")
	if len(options) > 0 {
		whole += "?" + strings.Join(options, "&")
	}
	return whole
}

// Covers is true if another location is this one, or lies below it: in the same bucket of the same server, reached the same way.
// Region and profile do not matter.
func (l Location) Covers(other Location) bool {
	return l.Bucket == other.Bucket && strings.EqualFold(l.Endpoint, other.Endpoint) && l.Insecure == other.Insecure && strings.HasPrefix(other.Prefix, l.Prefix)
}

// amazon is true if the bucket lies at AWS.
func (l Location) amazon() bool {
	host, _, err := net.SplitHostPort(l.Endpoint)
	if err != nil {
		host = l.Endpoint
	}
	return host == "" || strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn")
}

// amazonEndpoint is where a bucket lies of which nothing else is said.
const amazonEndpoint = "s3.amazonaws.com"

// withDefaults fills what the location leaves open from the environment, as Amazon's own tools do.
func (l Location) withDefaults() Location {
	if l.Profile == "" {
		l.Profile = os.Getenv("AWS_PROFILE")
	}
	if l.Endpoint == "" {
		for _, name := range []string{"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} {
			if value := os.Getenv(name); value != "" && l.Endpoint == "" {
				_ = l.setEndpoint(value) // one that is malformed is not used by them either
			}
		}
	}
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if l.Region == "" {
			l.Region = os.Getenv(name)
		}
	}
	if l.Region == "" {
		l.Region = configuredRegion(l.Profile)
	}
	if l.Region == "" && !l.amazon() {
		l.Region = "us-east-1" // what servers with one region call it
	}
	if l.Endpoint == "" {
		l.Endpoint = amazonEndpoint
	}
	return l
}

// configuredRegion is the region of a profile in the AWS configuration file; empty if there is none.
func configuredRegion(profile string) string {
	path := os.Getenv("AWS_CONFIG_FILE")
	if path == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		path = filepath.Join(home, ".aws", "config")
	}
	file, err := ini.Load(path)
	if err != nil {
		return ""
	}
	section := "default"
	if profile != "" && profile != "default" {
		section = "profile " + profile
	}
	return file.Section(section).Key("region").String()
}

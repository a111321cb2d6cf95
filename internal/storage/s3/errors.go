package s3

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"

	"ferry/internal/backup"
	"ferry/internal/storage"
)

// class says what to do about an error.
type class int

const (
	// permanent: trying again changes nothing.
	permanent class = iota
	// temporary: trying again may help. The request may have taken effect: only its answer was lost.
	temporary
)

// temporaryCodes are what servers answer when they want to be asked again.
var temporaryCodes = map[string]bool{
	"SlowDown": true, "SlowDownRead": true, "SlowDownWrite": true, "InternalError": true, "ServiceUnavailable": true, "RequestTimeout": true,
	"Throttling": true, "ThrottlingException": true, "RequestLimitExceeded": true, "RequestThrottled": true, "OperationAborted": true,
	"ConditionalRequestConflict": true, "IncompleteBody": true, "BadDigest": true, "XAmzContentSHA256Mismatch": true, "TransactionInProgress": true,
}

// skewed is the code for a request whose signature is of another time than the server's.
const skewed = "RequestTimeTooSkewed"

// classOf tells whether trying again may help.
func classOf(err error) class {
	if response, ok := errors.AsType[minio.ErrorResponse](err); ok {
		switch response.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
			http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return temporary
		}
		if temporaryCodes[response.Code] {
			return temporary
		}
		return permanent
	}
	if _, ok := errors.AsType[*x509.UnknownAuthorityError](err); ok {
		return permanent
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return permanent
	}
	if _, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return permanent
	}
	if lookup, ok := errors.AsType[*net.DNSError](err); ok && lookup.IsNotFound {
		return permanent
	}
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return permanent
	}
	// What is left is the network's: refused, reset, cut off, timed out.
	return temporary
}

// errNoServer is the answer of something that stands where an S3 server should, or in front of one that it does not reach just now.
var errNoServer = errors.New("404, and not from an S3 server")

// ofServer tells a server's answer that something is not there, which is in XML, from other answers that say no more than 404. It is not for
// those to a HEAD, of which none has a body.
func ofServer(err error) error {
	if response, ok := errors.AsType[minio.ErrorResponse](err); ok && response.StatusCode == http.StatusNotFound && response.XMLName.Local == "" {
		return errNoServer
	}
	return err
}

// errCut is a body that ended early.
var errCut = fmt.Errorf("the answer was cut off: %w", io.ErrUnexpectedEOF)

// describe makes an error for people, and for callers who decide on it: it names the object, says what to do where that
// is known, and wraps the conditions of package storage. Keys and signatures never are in it.
func (s *Store) describe(doing, name string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	what := doing + " " + s.location.text
	if name != "" {
		what = doing + " " + name + " in " + s.location.text
	}
	response, answered := errors.AsType[minio.ErrorResponse](err)
	if !answered {
		return &backup.Error{Offset: backup.NoOffset, Err: fmt.Errorf("%s: %w", what, err), Hint: networkHint(err)}
	}
	cause := errors.New(answer(response))
	hint := ""
	switch {
	case response.StatusCode == http.StatusNotFound && response.Code == "NoSuchBucket":
		hint = "make the bucket first, or mend its name, the endpoint or the region; docs/s3.md has the commands"
		return &backup.Error{Offset: backup.NoOffset, Err: fmt.Errorf("%s: there is no bucket %s: %w", what, s.location.Bucket, storage.ErrNoStorage), Hint: hint}
	case saysMissing(err):
		return fmt.Errorf("%s: %w", what, storage.ErrNotExist)
	case response.StatusCode == http.StatusPreconditionFailed:
		return fmt.Errorf("%s: %w", what, storage.ErrExists)
	case response.StatusCode == http.StatusInsufficientStorage || strings.Contains(response.Code, "Quota") || strings.Contains(response.Code, "StorageFull"):
		cause = fmt.Errorf("%w: %w", storage.ErrFull, cause)
		hint = "raise the quota or free space, then run it again"
	default:
		hint = s.answerHint(response)
	}
	return &backup.Error{Offset: backup.NoOffset, Err: fmt.Errorf("%s: %w", what, cause), Hint: hint}
}

// saysMissing is true if it is the object that is not there: keys that a server does not know are answered with 404, too.
func saysMissing(err error) bool {
	switch response, _ := errors.AsType[minio.ErrorResponse](err); response.Code {
	case "NoSuchVersion":
		return true
	case "NoSuchKey", "NotFound", "":
		return isStatus(err, http.StatusNotFound)
	}
	return false
}

// answer is what the server said.
func answer(response minio.ErrorResponse) string {
	text := fmt.Sprintf("the server answered %d %s", response.StatusCode, response.Code)
	if message := strings.TrimSpace(response.Message); message != "" && message != response.Code {
		text += ": " + strings.TrimRight(message, ".")
	}
	if len(text) > 400 {
		text = text[:400] + "…"
	}
	return text
}

// answerHint says what a person can do about an answer.
func (s *Store) answerHint(response minio.ErrorResponse) string {
	switch response.Code {
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecretKey", "XAdminUserNotFound", "NoSuchUser":
		return "the keys are not those of this server: see AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE, and the endpoint in the location"
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return "the session has ended: get new temporary keys (AWS_SESSION_TOKEN)"
	case skewed, "RequestExpired":
		return "this machine's clock is wrong: set it (timedatectl set-ntp true)"
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "InvalidRegion", "IllegalLocationConstraintException":
		if response.Region != "" {
			return "the bucket is in another region: add region=" + response.Region + " to the location"
		}
		return "the bucket is in another region: add region=… to the location"
	case "AccessDenied", "AllAccessDisabled":
		return "the keys may not do that in this bucket: docs/s3.md lists the rights that Ferry needs, and how to grant them"
	case "NotImplemented", "MethodNotAllowed":
		return "this server lacks something that Ferry needs; docs/s3.md lists it"
	}
	return ""
}

func networkHint(err error) string {
	if lookup, ok := errors.AsType[*net.DNSError](err); ok && lookup.IsNotFound {
		return "there is no such host: see the endpoint and the region in the location"
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "x509"), strings.Contains(text, "certificate"):
		return "the server's certificate is not trusted here: add its authority to the system's, or set SSL_CERT_FILE"
	case strings.Contains(text, "HTTP response to HTTPS"):
		return "the server speaks HTTP: write s3+http:// or endpoint=http://…"
	case errors.Is(err, errNoServer):
		return "see the endpoint in the location, and whether the server behind it runs"
	case strings.Contains(text, "connection refused"):
		return "nothing listens there: see the endpoint and its port in the location"
	}
	return ""
}

func isCode(err error, codes ...string) bool {
	response, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		return false
	}
	for _, code := range codes {
		if response.Code == code {
			return true
		}
	}
	return false
}

func isStatus(err error, status int) bool {
	response, ok := errors.AsType[minio.ErrorResponse](err)
	return ok && response.StatusCode == status
}

package s3

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
)

// chunkSize is the unit of memory that parts are kept in, in bytes.
const chunkSize = 1 << 20

// body is what one request carries: size bytes in chunks.
type body struct {
	chunks [][]byte
	size   int64
}

type sums struct{ md5, sha256 string }

// sums are the checksums that the server compares: SHA-256 is part of the signature, MD5 is asked for where objects are
// locked.
func (b *body) sums(locked bool) sums {
	long := sha256.New()
	short := md5.New()
	for _, chunk := range b.chunks {
		long.Write(chunk)
		if locked {
			short.Write(chunk)
		}
	}
	found := sums{sha256: hex.EncodeToString(long.Sum(nil))}
	if locked {
		found.md5 = base64.StdEncoding.EncodeToString(short.Sum(nil))
	}
	return found
}

// reader reads the body from its beginning.
func (b *body) reader() io.Reader { return &bodyReader{rest: b.chunks} }

type bodyReader struct {
	rest [][]byte
	at   int
}

func (r *bodyReader) Read(p []byte) (int, error) {
	for len(r.rest) > 0 && r.at == len(r.rest[0]) {
		r.rest, r.at = r.rest[1:], 0
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest[0][r.at:])
	r.at += n
	return n, nil
}

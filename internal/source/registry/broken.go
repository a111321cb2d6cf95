package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"

	"ferry/internal/cachefile"
	"ferry/internal/source"
)

// brokenFiles remembers the files of points that turned out broken while they were read, by identity, size and mtime.
// It is a cache: losing it costs reading them again.
type brokenFiles struct {
	path    string
	entries []brokenEntry
}

type brokenEntry struct {
	Files  []source.FileIdentity `json:"files"`
	Reason string                `json:"reason"`
}

// openBrokenFiles reads what is remembered of a source's folder.
func openBrokenFiles(cacheDir, folder string) *brokenFiles {
	b := &brokenFiles{}
	if cacheDir == "" {
		return b
	}
	sum := sha256.Sum256([]byte(folder))
	b.path = filepath.Join(cacheDir, "broken", hex.EncodeToString(sum[:8])+".json")
	if content, err := os.ReadFile(b.path); err == nil && json.Unmarshal(content, &b.entries) != nil {
		b.entries = nil
	}
	return b
}

func (b *brokenFiles) reason(files []source.FileIdentity) (string, bool) {
	for _, entry := range b.entries {
		if sameFiles(entry.Files, files) {
			return entry.Reason, true
		}
	}
	return "", false
}

func sameFiles(a, b []source.FileIdentity) bool {
	if len(a) != len(b) || len(a) == 0 {
		return false
	}
	for i := range a {
		if !a[i].Same(b[i]) {
			return false
		}
	}
	return true
}

// brokenLimit is how many points are remembered for one folder.
const brokenLimit = 10000

func (b *brokenFiles) remember(files []source.FileIdentity, reason string) error {
	if _, known := b.reason(files); known || b.path == "" || len(files) == 0 {
		return nil
	}
	b.entries = append(b.entries, brokenEntry{Files: files, Reason: reason})
	if len(b.entries) > brokenLimit {
		b.entries = b.entries[len(b.entries)-brokenLimit:]
	}
	content, err := json.Marshal(b.entries)
	if err != nil {
		return err
	}
	return cachefile.Write(b.path, content)
}

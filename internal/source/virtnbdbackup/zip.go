package virtnbdbackup

import (
	"archive/zip"
	"fmt"
	"io"
	"strings"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// zipLimit bounds what is read of a ZIP file's directory, and of the configuration in it.
const zipLimit = source.ScanLimit / 2

// zipPoint recognises the ZIP stream that virtnbdbackup writes to standard output, by the configuration in it. Its
// files are not read in place: it is named, so that somebody unpacks it.
func zipPoint(root *source.Root, entry source.Entry) (source.Point, bool) {
	if !strings.HasSuffix(strings.ToLower(entry.Name), ".zip") {
		return source.Point{}, false
	}
	file, err := root.Open(entry.Path)
	if err != nil {
		return source.Point{}, false
	}
	defer file.Close()
	archive, err := zip.NewReader(&shortReader{file: file, left: zipLimit}, file.Size())
	if err != nil {
		return source.Point{}, false // of another kind, damaged, or with a longer directory than ours ever have
	}
	// The configuration is read through the same allowance as the directory; unpacked it is bounded too.
	for _, member := range archive.File {
		if !vmconfigPattern.MatchString(member.Name) {
			continue
		}
		content, err := member.Open()
		if err != nil {
			return source.Point{}, false
		}
		text, err := io.ReadAll(io.LimitReader(content, zipLimit))
		content.Close()
		if err != nil {
			return source.Point{}, false
		}
		config, err := parseDomain(text)
		if err != nil {
			return source.Point{}, false
		}
		machine := config.machine(root)
		native := fmt.Sprintf("zip@%d", entry.ModTime.UnixNano())
		return source.Point{Files: []source.FileIdentity{entry.FileIdentity}, Point: backup.Point{
			ID: backup.NewPointID(machine.Key, native), Machine: machine, Created: entry.ModTime, Zone: "UTC",
			State: backup.StateUnsupported, Reason: "a ZIP stream of virtnbdbackup: unpack it first",
			Origin: backup.Origin{Format: Name, Source: root.Name(), NativePointID: native, Location: entry.Path},
		}}, true
	}
	return source.Point{}, false
}

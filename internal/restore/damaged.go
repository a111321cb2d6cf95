package restore

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mergeRanges sorts ranges and makes neighbours one.
func mergeRanges(ranges []Range) []Range {
	slices.SortFunc(ranges, func(a, b Range) int { return cmp.Compare(a.Offset, b.Offset) })
	var merged []Range
	for _, r := range ranges {
		if n := len(merged); n > 0 && r.Offset <= merged[n-1].Offset+merged[n-1].Length {
			merged[n-1].Length = max(merged[n-1].Length, r.Offset+r.Length-merged[n-1].Offset)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

const (
	mapSuffix = ".map"
	mapTitle  = "# Mapfile. Written by ferry restore: what has the status - could not be read and is zeros in the file"
)

// writeMap writes the map of what a file lacks beside it, in the form of GNU ddrescue's mapfiles, so that ddrescuelog and
// other tools can work with it. Beside a file that lacks nothing a map of an earlier restore is removed.
func writeMap(dir string, file *File, options Options) error {
	path := filepath.Join(dir, file.Path+mapSuffix)
	if len(file.Damaged) == 0 {
		if old, err := os.ReadFile(path); err == nil && options.Force && bytes.HasPrefix(old, []byte(mapTitle)) {
			return os.Remove(path)
		}
		return nil
	}
	draft, err := newDraft(path)
	if err != nil {
		return err
	}
	defer draft.drop()
	if _, err := draft.file.WriteString(mapfile(file.Size, file.Damaged)); err != nil {
		return full(err, path)
	}
	file.Map = file.Path + mapSuffix
	return draft.publish(options.Force)
}

// mapfile is the text of a map: every byte of the file is in one of its lines, in order.
func mapfile(size int64, damaged []Range) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n# current_pos  current_status  current_pass\n0x%08X     +               1\n#      pos        size  status\n", mapTitle, size)
	line := func(from, to int64, status byte) {
		if to > from {
			fmt.Fprintf(&text, "0x%08X  0x%08X  %c\n", from, to-from, status)
		}
	}
	at := int64(0)
	for _, d := range damaged {
		line(at, d.Offset, '+')
		line(d.Offset, d.Offset+d.Length, '-')
		at = d.Offset + d.Length
	}
	line(at, size, '+')
	return text.String()
}

package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"ferry/internal/backup"
)

// line prints one line of what was asked for.
func (a *app) line(format string, args ...any) {
	out := a.out
	if a.live != nil {
		out = a.live
	}
	fmt.Fprintf(out, format+"\n", args...)
}

// say prints one line that a person likes to see and a script does not need: --quiet leaves it out.
func (a *app) say(format string, args ...any) {
	if !a.quiet {
		a.line(format, args...)
	}
}

// printable makes names from sources safe to print.
func printable(name string) string { return backup.SafeText(backup.EncodeName(name)) }

// readable makes a message safe to print. Names in it are encoded already.
func readable(message string) string { return backup.SafeText(message) }

// readableList is that of each message, and for JSON never nil.
func readableList(messages []string) []string {
	list := []string{}
	for _, message := range messages {
		list = append(list, readable(message))
	}
	return list
}

// size is a number of bytes as people read it.
func size(bytes int64) string {
	if bytes < 0 {
		return "size unknown"
	}
	return humanize.IBytes(uint64(bytes))
}

// timeForm is how times are shown: --point takes it as it is.
const timeForm = "2006-01-02 15:04:05"

// when is a time as people read it and type it: local. A point of which no time is known has none.
func when(t time.Time) string {
	if t.IsZero() {
		return "time not known"
	}
	return t.Local().Format(timeForm)
}

// zoneNow is what the local time zone is called.
func zoneNow() string { return time.Now().Format("MST") }

// count is a number as people read it.
func count(n int) string { return humanize.Comma(int64(n)) }

// counted is a number of things: "1 point", "2 points".
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return count(n) + " " + thing + "s"
}

// shortName is what a machine is called in a line: its name, or its id if it has none.
func shortName(m backup.Machine) string {
	if m.Name != "" {
		return printable(m.Name)
	}
	return m.Key.String()
}

// machineTitle is a machine's name and id.
func machineTitle(m backup.Machine) string {
	if m.Name == "" || m.Name == m.Key.NativeID {
		return m.Key.String()
	}
	return printable(m.Name) + "  " + m.Key.String()
}

// title is machineTitle of a machine that was described.
func (m machineJSON) title() string {
	if m.Name == "" || slices.Contains(strings.Split(m.ID, "/"), m.Name) {
		return m.ID
	}
	return m.Name + "  " + m.ID
}

// shortID is the beginning of a point's id, as many digits as lists show.
func shortID(id string) string { return id[:min(len(id), 12)] }

// isContent is true for what holds the machine's data, as opposed to what describes it.
func isContent(o backup.Object) bool {
	switch o.Role {
	case backup.RoleDisk, backup.RoleArchive, backup.RoleFirmware, backup.RoleTPM, backup.RoleMemory:
		return true
	}
	return false
}

// leastFolded is the narrowest last column of a table whose lines are folded.
const leastFolded = 20

// table prints rows with aligned columns. The last column is as long as it is; on a terminal it is folded to its width.
func (a *app) table(rows [][]string) {
	for _, line := range aligned(rows, terminalWidth(a.out)) {
		a.line("%s", line)
	}
}

// aligned are rows as lines with aligned columns, the last folded to a terminal's width; 0: it is as long as it is.
func aligned(rows [][]string, terminal int) []string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	lines := make([]string, len(rows))
	for n, row := range rows {
		var line strings.Builder
		at := 0
		for i, cell := range row {
			if i == len(row)-1 {
				cell = lastCell(cell, at, widths[0]+2, terminal)
			}
			if strings.HasPrefix(cell, "\n") {
				before := strings.TrimRight(line.String(), " ")
				line.Reset()
				line.WriteString(before)
			}
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-len([]rune(cell))+2))
				at += widths[i] + 2
			}
		}
		lines[n] = strings.TrimRight(line.String(), " ")
	}
	return lines
}

// lastCell folds a line's last cell, which begins at a column. Where there is no room to speak of it goes on a line of its own,
// below the second column.
func lastCell(cell string, at, second, terminal int) string {
	if room := terminal - at; terminal == 0 || room >= leastFolded || len([]rune(cell)) <= room {
		return fold(cell, at, terminal)
	}
	return "\n" + strings.Repeat(" ", second) + fold(cell, second, terminal)
}

// fold breaks text at spaces so that it fits between column at and width, and aligns what follows.
func fold(text string, at, width int) string {
	room := width - at
	if room < leastFolded || len([]rune(text)) <= room {
		return text
	}
	var folded strings.Builder
	used := 0
	for i, word := range strings.Split(text, " ") {
		length := len([]rune(word))
		switch {
		case i == 0:
		case used+1+length > room:
			folded.WriteString("\n" + strings.Repeat(" ", at))
			used = 0
		default:
			folded.WriteByte(' ')
			used++
		}
		folded.WriteString(word)
		used += length
	}
	return folded.String()
}

// results is standard output. It remembers that something could not be written: a command whose results are lost on a full disk
// has not done what it was asked for, whatever it did beside.
type results struct {
	io.Writer
	mu     sync.Mutex
	failed error
}

func (r *results) Write(p []byte) (int, error) {
	n, err := r.Writer.Write(p)
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failed = cmp.Or(r.failed, err)
	}
	return n, err
}

// lost is why some of it could not be written; nil: all was.
func (r *results) lost() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// fileOf is the file that a stream is; nil if it is none.
func fileOf(stream io.Writer) *os.File {
	if r, ok := stream.(*results); ok {
		stream = r.Writer
	}
	file, _ := stream.(*os.File)
	return file
}

// isTerminal is true if a stream is a terminal that bars can be drawn on.
func isTerminal(stream io.Writer) bool {
	file := fileOf(stream)
	if file == nil {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil && os.Getenv("TERM") != "dumb"
}

// terminalWidth is the width of a terminal in characters, 0 for any other stream.
func terminalWidth(stream io.Writer) int {
	if !isTerminal(stream) {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(fileOf(stream).Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

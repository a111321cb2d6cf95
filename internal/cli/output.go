package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"
)

// printJSON prints a value as the command's only output.
func (a *app) printJSON(value any) error {
	encoder := json.NewEncoder(a.out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// line prints one line of a command's output for people.
func (a *app) line(format string, args ...any) { fmt.Fprintf(a.out, format+"\n", args...) }

// size is a number of bytes as people read it.
func size(bytes int64) string {
	if bytes < 0 {
		return "?"
	}
	return humanize.IBytes(uint64(bytes))
}

// when is a point's time as people read it: in UTC, as it is stored.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// table prints rows with aligned columns; the last column is as long as it is.
func (a *app) table(rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-len([]rune(cell))+2))
			}
		}
		fmt.Fprintln(a.out, strings.TrimRight(line.String(), " "))
	}
}

// isTerminal is true if a stream is a terminal that bars can be drawn on.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil && os.Getenv("TERM") != "dumb"
}

// bars shows progress: a bar with rate and time left on a terminal, a line every so often elsewhere.
type bars struct {
	app      *app
	progress *mpb.Progress
}

// lineEvery is how often progress is said in a line where there is no terminal.
const lineEvery = 30 * time.Second

// newBars begins to show progress; the caller calls done.
func (a *app) newBars() *bars {
	b := &bars{app: a}
	if !a.quiet && isTerminal(a.errOut) {
		b.progress = mpb.New(mpb.WithOutput(a.errOut), mpb.WithWidth(40), mpb.WithRefreshRate(200*time.Millisecond))
	}
	return b
}

// add shows one more thing under way: name, and functions that tell how far it is. The returned function ends it.
func (b *bars) add(name string, total, done func() int64) func() {
	if b.app.quiet {
		return func() {}
	}
	if b.progress == nil {
		return b.lines(name, total, done)
	}
	bar := b.progress.AddBar(max(total(), 1),
		mpb.PrependDecorators(decor.Name(name, decor.WC{C: decor.DindentRight | decor.DextraSpace}), decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.NewPercentage("%d ", decor.WC{W: 5}), decor.AverageSpeed(decor.SizeB1024(0), "% .1f", decor.WC{W: 12}), decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 9})),
		mpb.BarRemoveOnComplete(),
	)
	return b.poll(200*time.Millisecond, func() {
		bar.SetTotal(max(total(), 1), false)
		bar.SetCurrent(min(done(), max(total(), 1)))
	}, func() { bar.Abort(true) })
}

// lines says how far it is, now and then.
func (b *bars) lines(name string, total, done func() int64) func() {
	began := time.Now()
	return b.poll(lineEvery, func() {
		rate := float64(done()) / time.Since(began).Seconds()
		left := "?"
		if rate > 0 {
			left = time.Duration(float64(total()-done()) / rate * float64(time.Second)).Round(time.Second).String()
		}
		fmt.Fprintf(b.app.errOut, "%s: %s of %s, %s/s, %s left\n", name, size(done()), size(total()), size(int64(rate)), left)
	}, func() {})
}

// poll calls update at an interval until the returned function is called, which waits for it and calls end.
func (b *bars) poll(interval time.Duration, update, end func()) func() {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				update()
			case <-stop:
				return
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
		end()
	}
}

// done ends all bars.
func (b *bars) done() {
	if b.progress != nil {
		b.progress.Wait()
	}
}

// count is a number as people read it.
func count(n int) string { return humanize.Comma(int64(n)) }

package cli

import (
	"fmt"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// bars shows progress: a bar with rate and time left on a terminal, a line every so often elsewhere.
type bars struct {
	app      *app
	progress *mpb.Progress
}

const (
	// lineEvery is how often progress is said in a line where there is no terminal.
	lineEvery = 30 * time.Second
	// drawEvery is how often a bar is drawn.
	drawEvery = 200 * time.Millisecond
	// barNameLimit is how much of a name a bar shows, in characters.
	barNameLimit = 24
)

// newBars begins to show progress; the caller calls done. Until then lines go through the bars, if both are drawn on one
// terminal: each would overwrite the other.
func (a *app) newBars() *bars {
	b := &bars{app: a}
	if !a.quiet && isTerminal(a.errOut) {
		b.progress = mpb.New(mpb.WithOutput(a.errOut), mpb.WithRefreshRate(drawEvery))
		if isTerminal(a.out) {
			a.live = b.progress
		}
	}
	return b
}

// done ends all bars.
func (b *bars) done() {
	if b.progress != nil {
		b.app.live = nil
		b.progress.Wait()
	}
}

// add shows one more thing under way: name, and functions that tell how far it is. The returned function ends it.
func (b *bars) add(name string, total, done func() int64) func() {
	switch {
	case b.progress != nil:
		return b.bar(name, total, done)
	case b.app.quiet || b.app.json:
		return func() {}
	}
	return b.lines(name, total, done)
}

func (b *bars) bar(name string, total, done func() int64) func() {
	if runes := []rune(name); len(runes) > barNameLimit {
		name = string(runes[:barNameLimit-1]) + "…"
	}
	began := time.Now()
	bar := b.progress.AddBar(max(total(), 1),
		mpb.PrependDecorators(decor.Name(name+"  "), decor.Any(func(decor.Statistics) string { return size(done()) + " / " + size(total()) + " " })),
		mpb.AppendDecorators(decor.NewPercentage("%3d ", decor.WC{W: 5}), decor.Any(func(decor.Statistics) string { return size(perSecond(done(), began)) + "/s" }, decor.WC{W: 10}), decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 7})),
		mpb.BarRemoveOnComplete(),
	)
	return poll(drawEvery, func() {
		bar.SetTotal(max(total(), 1), false)
		bar.SetCurrent(min(done(), max(total(), 1)))
	}, func() {
		bar.Abort(true)
		bar.Wait()
	})
}

// perSecond is the average of so many bytes since a time.
func perSecond(bytes int64, since time.Time) int64 {
	return int64(float64(bytes) / max(time.Since(since).Seconds(), drawEvery.Seconds()))
}

// lines says how far it is, now and then.
func (b *bars) lines(name string, total, done func() int64) func() {
	began := time.Now()
	return poll(lineEvery, func() {
		rate := float64(done()) / time.Since(began).Seconds()
		left := "?"
		if rate > 0 {
			left = time.Duration(float64(total()-done()) / rate * float64(time.Second)).Round(time.Second).String()
		}
		fmt.Fprintf(b.app.errOut, "%s: %s of %s, %s/s, %s left\n", name, size(done()), size(total()), size(int64(rate)), left)
	}, func() {})
}

// count shows how many of something are done, on a terminal only: it is over in minutes.
func (b *bars) count(name string, total, done func() int64) func() {
	if b.progress == nil {
		return func() {}
	}
	bar := b.progress.AddBar(1, mpb.PrependDecorators(decor.Name(name+"  "), decor.CountersNoUnit("%d / %d ")), mpb.BarRemoveOnComplete())
	return poll(drawEvery, func() {
		bar.SetTotal(max(total(), 1), false)
		bar.SetCurrent(min(done(), max(total(), 1)))
	}, func() {
		bar.Abort(true)
		bar.Wait()
	})
}

// poll calls update at an interval until the returned function is called, which waits for it and calls end.
func poll(interval time.Duration, update, end func()) func() {
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

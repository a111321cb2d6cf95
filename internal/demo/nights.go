package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ferry/internal/api"
	"ferry/internal/client"
	"ferry/internal/restore"
)

// What the server has, in the story's folder.
const (
	stateFolder = "state"
	socketName  = "ferry.sock"
	logName     = "server.log"
	jobFile     = "offsite.yaml"
	jobName     = "offsite"
	shelfFolder = "shelf"
	awayFolder  = "shelf.away"
)

// longestSocket is the longest path of a socket that Linux takes, in bytes.
const longestSocket = 107

// jobText is the job as a person would write it. It is carried out at two at night, when backups are done.
const jobText = `kind: Repository
name: pve
location: dump
---
kind: Repository
name: shelf
location: shelf
---
kind: Job
name: offsite
source: {repositories: [pve]}
target: {repository: shelf}
schedule: {every: 1d, at: "02:00", timeZone: UTC}
retention: {days: 14, weekly: {keep: 4}}
rpo: 30h
`

// The nights that the server lives through, as days of the machines.
const (
	quietNight  = days
	lockedNight = days + 1
	awayNight   = days + 2
	lastNight   = days + 3
)

// ServerStart is when a person starts the server: in the morning after the last day of the first part.
var ServerStart = firstNight.AddDate(0, 0, days-1).Add(8 * time.Hour)

// at is a time of the day of a night.
func at(night, hour, minute int) time.Time {
	midnight := firstNight.AddDate(0, 0, night).Truncate(24 * time.Hour)
	return midnight.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
}

// server: it is given a job, lives through several nights, and says how it went.
func (s *story) server(ctx context.Context) error {
	s.client = client.New(s.path(socketName))
	s.Narrator.Heading("A server that goes on by itself")
	stop, err := s.startServer(ctx)
	if err != nil {
		return err
	}
	for _, part := range []part{(*story).giveJob, (*story).quiet, (*story).locked, (*story).away, (*story).lookBack} {
		if err = part(s, ctx); err != nil {
			break
		}
	}
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	return s.proveShelf(ctx)
}

// startServer starts ferry serve and returns once it answers. It copies one machine at a time, so that the story is the same each
// time. stop has it end, and waits until it has.
func (s *story) startServer(ctx context.Context) (stop func() error, err error) {
	log, err := os.Create(s.path(logName))
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- errors.Join(s.Ferry(within, log, "serve", "--state", s.path(stateFolder), "--socket", s.path(socketName), "--slots", "1"), log.Close())
	}()
	s.Narrator.Command("export FERRY_SOCKET=$PWD/" + socketName)
	s.Narrator.Command(fmt.Sprintf("ferry serve --state %s --slots 1 2> %s &", stateFolder, logName))
	stop = func() error {
		cancel()
		return <-ended
	}
	for !s.client.Running(ctx) {
		select {
		case err := <-ended:
			cancel()
			return nil, errors.Join(errors.New("the server ended before it answered"), err)
		case <-time.After(askAgain):
		}
	}
	return stop, nil
}

// askAgain is how long is waited before the server is asked again, and longestWait how long in all until it has done something.
// Where a session looked in the moment in which the clock was moved, it waits for its next look: each time that moveOn has passed, the
// clock moves on.
const (
	askAgain    = 20 * time.Millisecond
	moveOn      = 5 * time.Second
	longestWait = 2 * time.Minute
)

// until asks for the newest session of the job until it is as it must be.
func (s *story) until(ctx context.Context, what string, good func(api.Session) bool) (api.Session, error) {
	within, cancel := context.WithTimeout(ctx, longestWait)
	defer cancel()
	moving := time.NewTicker(moveOn)
	defer moving.Stop()
	for last := ""; ; {
		list, err := s.client.Sessions(within, jobName, 0, 1)
		switch {
		case err == nil && len(list) == 1 && good(list[0]):
			return list[0], nil
		case err == nil && len(list) == 1:
			last = fmt.Sprintf("; session %d of %s is %s %s", list[0].ID, timeText(list[0].Began), list[0].State, list[0].Reason)
		case within.Err() == nil && err != nil:
			return api.Session{}, err
		}
		select {
		case <-within.Done():
			if ctx.Err() != nil {
				return api.Session{}, ctx.Err()
			}
			return api.Session{}, fmt.Errorf("waited %s for %s%s", longestWait, what, last)
		case <-moving.C:
			s.Clock.MoveTo(s.Clock.Now().Add(15 * time.Minute))
		case <-time.After(askAgain):
		}
	}
}

// night is what became of the interval of a night: the session ended, and as it must.
func (s *story) night(ctx context.Context, night, copied int) error {
	boundary := at(night, 2, 0)
	session, err := s.until(ctx, "the end of the session of "+timeText(boundary), func(session api.Session) bool {
		return session.Boundary.Equal(boundary) && !session.Ended.IsZero()
	})
	if err != nil {
		return err
	}
	if session.State != "done" || session.Counts["copied"] != int64(copied) {
		return fmt.Errorf("session %d of %s is %s, %d copied, not done and %d: %s", session.ID, timeText(boundary), session.State, session.Counts["copied"], copied, session.Reason)
	}
	s.summary.Nights = append(s.summary.Nights, NightSummary{Session: session.ID, Boundary: session.Boundary, Ended: session.Ended, State: session.State, Copied: copied})
	return nil
}

// waits is a session of a night that waits for something.
func (s *story) waits(ctx context.Context, night int, reason string) error {
	boundary := at(night, 2, 0)
	_, err := s.until(ctx, "a session that waits: "+reason, func(session api.Session) bool {
		return session.Boundary.Equal(boundary) && session.State == "waiting" && strings.Contains(session.Reason, reason)
	})
	return err
}

// show types a command, in the words of a person, and prints all that it says. The error is the command's own.
func (s *story) show(ctx context.Context, typed string, args ...string) (string, error) {
	s.Narrator.Command(typed)
	var out bytes.Buffer
	err := s.Ferry(ctx, &out, args...)
	s.Narrator.Output(out.String())
	return out.String(), err
}

// ask types a command that asks the server.
func (s *story) ask(ctx context.Context, args ...string) (string, error) {
	return s.show(ctx, "ferry "+strings.Join(args, " "), append(args, "--socket", s.path(socketName))...)
}

// giveJob applies the job, and runs it for the first time.
func (s *story) giveJob(ctx context.Context) error {
	if err := os.WriteFile(s.path(jobFile), []byte(jobText), 0o600); err != nil {
		return err
	}
	s.Narrator.Say("What it is to do is a job. Its source is the folder with the backups of both machines, its target another folder, shelf.")
	s.Narrator.Command("cat " + jobFile)
	s.Narrator.Output(jobText)
	s.Narrator.Say("The target is made by a person, once; then the job is applied.")
	if _, err := s.show(ctx, "ferry repo init "+shelfFolder, "repo", "init", s.path(shelfFolder)); err != nil {
		return err
	}
	if _, err := s.show(ctx, "ferry apply -f "+jobFile, "apply", "-f", s.path(jobFile), "--socket", s.path(socketName)); err != nil {
		return err
	}
	s.Narrator.Say("It would begin at two at night. Somebody cannot wait for that:")
	_, err := s.ask(ctx, "job", "run")
	return err
}

// quiet: a night in which all is well.
func (s *story) quiet(ctx context.Context) error {
	s.Narrator.Heading("Four nights")
	s.Narrator.Say("The server's clock is made up too: it is moved from night to night. Each brings two backups. The first night is quiet.")
	if err := s.backUp(ctx, quietNight); err != nil {
		return err
	}
	s.Clock.MoveTo(at(quietNight, 2, 0))
	return s.night(ctx, quietNight, 2)
}

// locked: at two one machine's backup is still being written. It is waited for, the other one is copied.
func (s *story) locked(ctx context.Context) error {
	web, database := machines()[0], machines()[1]
	s.Narrator.Say("In the second one the backup of db01 is still being written at two. The server copies web01, and waits for db01.")
	if err := s.backUpMachine(ctx, web, lockedNight); err != nil {
		return err
	}
	running := s.path(dumpFolder, database.base(lockedNight)+".vma.dat")
	archive, _ := database.archive(lockedNight)
	var whole bytes.Buffer
	if _, err := archive.WriteTo(&whole); err != nil {
		return err
	}
	if err := os.WriteFile(running, whole.Bytes()[:whole.Len()/2], 0o600); err != nil {
		return err
	}
	s.Clock.MoveTo(at(lockedNight, 2, 0))
	if err := s.waits(ctx, lockedNight, "locked"); err != nil {
		return err
	}
	if _, err := s.ask(ctx, "session", "show", jobName); err != nil {
		return err
	}
	s.Narrator.Say("At 2:25 the backup is done. Nobody does anything, and it is copied.")
	if err := s.backUpMachine(ctx, database, lockedNight); err != nil {
		return err
	}
	if err := os.Remove(running); err != nil {
		return err
	}
	s.Clock.MoveTo(at(lockedNight, 2, 25))
	return s.night(ctx, lockedNight, 2)
}

// away: the target's disk is away until noon.
func (s *story) away(ctx context.Context) error {
	s.Narrator.Say("In the third one the disk with shelf is away. By the morning the copies are older than the job allows: that is critical.")
	s.Narrator.Command(fmt.Sprintf("mv %s %s", shelfFolder, awayFolder))
	if err := os.Rename(s.path(shelfFolder), s.path(awayFolder)); err != nil {
		return err
	}
	if err := s.backUp(ctx, awayNight); err != nil {
		return err
	}
	s.Clock.MoveTo(at(awayNight, 2, 0))
	if err := s.waits(ctx, awayNight, "offline"); err != nil {
		return err
	}
	s.Clock.MoveTo(at(awayNight, 8, 0))
	said, err := s.ask(ctx, "status")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(said, "CRITICAL: 2 copies") {
		return fmt.Errorf("two copies are too old, and the status says %q", said)
	}
	s.Narrator.Say("At noon it is back. The interval of the night is still to be run, and is.")
	s.Narrator.Command(fmt.Sprintf("mv %s %s", awayFolder, shelfFolder))
	if err := os.Rename(s.path(awayFolder), s.path(shelfFolder)); err != nil {
		return err
	}
	s.Clock.MoveTo(at(awayNight, 12, 0))
	return s.night(ctx, awayNight, 2)
}

// lookBack: one more night, and what the server says of all of them.
func (s *story) lookBack(ctx context.Context) error {
	s.Narrator.Say("The fourth one is quiet. What became of all of them?")
	if err := s.backUp(ctx, lastNight); err != nil {
		return err
	}
	s.Clock.MoveTo(at(lastNight, 2, 0))
	if err := s.night(ctx, lastNight, 2); err != nil {
		return err
	}
	if _, err := s.ask(ctx, "session", "list"); err != nil {
		return err
	}
	s.Narrator.Say("And how do things stand in the morning?")
	s.Clock.MoveTo(at(lastNight, 8, 0))
	if _, err := s.ask(ctx, "status"); err != nil {
		return err
	}
	status, err := s.client.Status(ctx, 10)
	if err != nil {
		return err
	}
	for _, alarm := range status.Alarms {
		if alarm.Kind != "space" { // of the disk that the demonstration is on
			return fmt.Errorf("in the morning there is an alarm: %s", alarm.Text)
		}
	}
	s.Narrator.Say("What would the job do now, why, and when does each point go?")
	_, err = s.ask(ctx, "job", "explain")
	return err
}

// proveShelf: what the server kept is good, and what the machines were.
func (s *story) proveShelf(ctx context.Context) error {
	s.Narrator.Say("The server is ended. What it kept needs neither it nor the backups: verify it, and take the database from it.")
	s.Narrator.Command("kill %1")
	s.Narrator.Command("ferry verify " + shelfFolder)
	report, err := s.check(ctx, shelfFolder)
	if err != nil {
		return err
	}
	if len(report.Damage) > 0 {
		return fmt.Errorf("what the server kept has %d damaged places", len(report.Damage))
	}
	s.Narrator.Result([]string{verifiedText(report) + ": everything is what was copied"})
	database := machines()[1]
	if err := s.restoreAndCompare(ctx, restoring{
		from: shelfFolder, machine: database.name, to: filepath.Join(restoredFolder, database.name+"-shelf"),
	}, database, lastNight); err != nil {
		return err
	}
	summary, _, err := s.info(ctx, shelfFolder)
	summary.VerifiedBytes = report.Bytes
	s.summary.Shelf = summary
	return err
}

// served are commands to try with the server.
func (s *story) served() []Suggestion {
	in := func(names ...string) string { return restore.Quote(s.path(names...)) }
	return []Suggestion{
		{fmt.Sprintf("ferry serve --state %s --socket %s", in(stateFolder), in(socketName)), "the server again, by today's clock: it says what it missed"},
		{"ferry status --socket " + in(socketName), "in another terminal"},
		{fmt.Sprintf("ferry session show %d --socket %s", s.summary.Nights[awayNight-days].Session, in(socketName)), "the night without the disk"},
	}
}

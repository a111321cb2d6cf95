package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/scheduler"
	"ferry/internal/server"
	"ferry/internal/source/registry"
	"ferry/internal/storage"
	"ferry/internal/storage/s3"
)

type serveFlags struct {
	state, socket string
	allow, place  []string
	slots         int
	bandwidth     bandwidthFlag
}

// bandwidthFlag takes limits as LIMIT or "LIMIT WHEN", by this machine's clock.
type bandwidthFlag []string

func (f *bandwidthFlag) Set(text string) error {
	_, err := policy.ParseLimit(text, time.Local)
	*f = append(*f, text)
	return err
}

func (f *bandwidthFlag) String() string { return "" }
func (f *bandwidthFlag) Type() string   { return "LIMIT" }

// defaultSlots is how many machines are copied at once if nothing else is said: one's processor work beside another's waiting.
const defaultSlots = 2

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	command := &cobra.Command{
		Use: "serve", Short: "Keep second copies on its own: run jobs when they are due",
		Long: `Run the jobs that were applied, each when it is due, and answer the other commands
on a Unix socket (docs/server.md). It needs no other service, and goes on until it
is told to end: then copies in progress write a checkpoint, and go on from there
when it starts again. So they do after it was killed.

What resources name of files and programs (passphrases, keys, credentials,
scripts) must lie in /etc/ferry, in the folder secrets of the state folder, or in
the folders that --allow names instead. Repositories may lie anywhere, unless
--place says where.`,
		Example: `  ferry serve
  ferry serve --state /srv/ferry --slots 4 --allow /etc/ferry --allow /usr/local/lib/ferry
  ferry serve --place /mnt/pve/dump --place /mnt/vault --place s3://backups/ferry`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), f) },
	}
	flags := command.Flags()
	flags.StringVar(&f.state, "state", "", "`DIR` for the server's catalog (default /var/lib/ferry for root, else ~/.local/state/ferry)")
	flags.StringVar(&f.socket, "socket", "", "`PATH` of the socket (default $FERRY_SOCKET, else /run/ferry/ferry.sock for root, $XDG_RUNTIME_DIR/ferry.sock for others)")
	flags.StringArrayVar(&f.allow, "allow", nil, "`DIR` in which files and programs may lie that resources name; repeatable")
	flags.StringArrayVar(&f.place, "place", nil, "`PLACE` in or below which sources and targets may lie: a folder, or s3://BUCKET/PREFIX; repeatable (default anywhere)")
	flags.IntVar(&f.slots, "slots", defaultSlots, "`NUMBER` of machines that are copied at once, over all jobs; 0 is any number")
	flags.Var(&f.bandwidth, "bandwidth", "`LIMIT` of all jobs together for what crosses a network, such as 100Mbit/s or \"100Mbit/s mon-fri 08:00-18:00\"; repeatable")
	completeFolders(command, "state", "allow", "place")
	register(command, "socket", completeFile)
	command.ValidArgsFunction = nothingToComplete
	return command
}

// serverMemory is what the garbage collector keeps the server within, in bytes, as long as it can: docs/server.md says what for.
const serverMemory = 200 << 20

// serve runs the server until ctx ends.
func (a *app) serve(ctx context.Context, f serveFlags) error {
	if f.slots < 0 {
		return usage("--slots %d is less than none", f.slots)
	}
	if os.Getenv("GOMEMLIMIT") == "" { // else an administrator has said it
		debug.SetMemoryLimit(serverMemory)
	}
	state, socket, err := f.places(os.Geteuid())
	if err != nil {
		return err
	}
	allowed, err := f.allowed(state)
	if err != nil {
		return err
	}
	release, err := lockState(ctx, state)
	if err != nil {
		return err
	}
	defer release()
	known, err := catalog.Open(ctx, filepath.Join(state, "catalog.db"), catalog.Options{Now: a.now()})
	if err != nil {
		return err
	}
	defer known.Close()
	log := slog.New(slog.NewTextHandler(a.errOut, nil))
	s := &service{app: a, allowed: allowed, bandwidth: f.bandwidth, log: log}
	runs := scheduler.New(known, scheduler.Options{
		Prepare: s.prepare, Configured: s.limit, Owner: ownerName(), Sole: true, Slots: f.slots, Log: log, Now: a.now(),
	})
	s.scheduler = runs
	if a.clock != nil {
		a.clock.Watch(runs.Changed)
	}
	return s.run(ctx, known, state, socket)
}

// places are the state folder and the socket of a user's server, as the options say or by default.
func (f serveFlags) places(uid int) (state, socket string, err error) {
	if state, err = filepath.Abs(f.state); err != nil {
		return "", "", usage("%w", err)
	}
	if f.state == "" {
		state = defaultStateDir(uid)
		err = checkStateDir(state, uid)
	}
	if socket = f.socket; socket == "" && err == nil {
		socket = defaultSocket(uid)
		err = checkStateDir(filepath.Dir(socket), uid)
	}
	return state, socket, err
}

// allowed is what resources may name, by --allow and --place or without them.
func (f serveFlags) allowed(state string) (server.Allowed, error) {
	allowed := server.Allowed{Files: []string{"/etc/ferry", filepath.Join(state, "secrets")}}
	var err error
	if len(f.allow) > 0 {
		allowed.Files, err = wholeFolders("--allow", f.allow)
	}
	if err == nil {
		allowed.Places, err = wholeFolders("--place", f.place)
	}
	return allowed, err
}

// wholeFolders are the folders that an option names, by their whole paths, and buckets as they are.
func wholeFolders(option string, given []string) ([]string, error) {
	whole := make([]string, len(given))
	for i, dir := range given {
		if dir == "" { // as of a variable that is not set; the working folder, which it would be, is often the root
			return nil, usage("%s names no folder", option)
		}
		var err error
		if s3.IsLocation(dir) {
			whole[i] = dir
			_, err = s3.ParseLocation(dir)
		} else {
			whole[i], err = filepath.Abs(dir)
		}
		if err != nil {
			return nil, usage("%s: %w", option, err)
		}
	}
	return whole, nil
}

// service is the server as the command line makes it.
type service struct {
	app       *app
	allowed   server.Allowed
	bandwidth []string
	log       *slog.Logger
	scheduler *scheduler.Scheduler
}

// run answers requests and runs jobs until ctx ends, or one of both fails.
func (s *service) run(ctx context.Context, known *catalog.Catalog, state, socket string) error {
	notify := notifierOf()
	listening := make(chan struct{})
	answers := server.New(server.Options{
		Catalog: known, Scheduler: s.scheduler, Allowed: s.allowed, Bandwidth: s.bandwidth, Version: Version, Log: s.log,
		Explanation: func(j policy.Job, e *job.Explanation) any { return describeExplanation(j, e) },
		Future:      s.future,
		Release:     s.scheduler.Release,
		Limit:       func(b policy.Bandwidth) { s.app.limits.Set(inAll, b) },
		Listening:   func() { close(listening) },
		Now:         s.app.now(),
	})
	if impossible, err := answers.HoldBandwidth(ctx); err != nil {
		return err
	} else if len(impossible) > 0 {
		return hinted(usage("--bandwidth: %s", impossible[0].Text), impossible[0].Hint)
	}
	group, within := errgroup.WithContext(ctx)
	group.Go(func() error { return answers.Serve(within, socket) })
	group.Go(func() error {
		select {
		case <-listening: // nothing is begun before it is certain that this is the one server
			return s.scheduler.Run(within)
		case <-within.Done():
			return nil
		}
	})
	group.Go(func() error {
		select {
		case <-listening:
			s.log.Info("serving", "version", Version, "state", state, "socket", socket, "allowed", strings.Join(s.allowed.Files, ", "), "places", cmp.Or(strings.Join(s.allowed.Places, ", "), "any"))
			notify.tell("READY=1")
			notify.watchdog(within, s.scheduler.Alive)
		case <-within.Done():
		}
		<-within.Done()
		notify.tell("STOPPING=1\nSTATUS=copies in progress write a checkpoint")
		s.log.Info("ending: copies in progress write a checkpoint")
		return nil
	})
	err := group.Wait()
	switch {
	case errors.Is(err, server.ErrRunning):
		return exitWith(ExitInUse, "%w", err)
	case err == nil:
		s.log.Info("ended")
	}
	return err
}

// lockWait is how long a server waits for the state folder: one that was killed while it started a program is there until that
// program has begun.
const lockWait = 2 * time.Second

// lockState makes sure that one server at a time uses a state folder, until release is called.
func lockState(ctx context.Context, state string) (release func(), err error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, usage("the state folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(state, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, usage("the state folder: %w", err)
	}
	try := func() error { return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
	err = try()
	for end := time.Now().Add(lockWait); errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(end) && ctx.Err() == nil; err = try() {
		_ = storage.Sleep(ctx, lockWait/20)
	}
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		lock.Close()
		return nil, exitWith(ExitInUse, "a server uses the state folder %s already", printable(state))
	case err != nil:
		lock.Close()
		return nil, fmt.Errorf("the state folder %s cannot be locked: %w", printable(state), err)
	}
	return func() { lock.Close() }, nil
}

// ownerName names this process: each that starts is another one.
func ownerName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return fmt.Sprintf("%.64s:%d:%s", printable(host), os.Getpid(), rand.Text()[:8])
}

// prepare is what a session of a job needs of this machine. Nothing is asked on a terminal, and what the resources name is
// looked at again: where links lead may have changed since they were applied.
func (s *service) prepare(ctx context.Context, resources policy.Resources, name string) (job.Setup, error) {
	of, there := resources.Job(name)
	if !there {
		return job.Setup{}, fmt.Errorf("job %s: %w", name, scheduler.ErrUnknownJob)
	}
	chosen := chosenJob{Job: of.Effective(), resources: resources, folder: "/"}
	if problems := s.allowed.Job(of); len(problems) > 0 {
		setup, post := chosen.bare(), policy.Scripts{Post: of.Scripts.Post}
		if len(s.allowed.Job(policy.Job{Scripts: post})) > 0 {
			setup.Job.Scripts = policy.Scripts{}
		}
		return setup, policy.Problems(problems)
	}
	setup, err := s.unattended(name).setup(chosen)
	if err != nil {
		return setup, err
	}
	if s.app.clock != nil {
		setup.Pause = s.app.clock.Pause
	}
	for i := range setup.Sources {
		place := &setup.Sources[i]
		open := place.Open
		place.Open = func(ctx context.Context) (*registry.Source, error) {
			if err := s.check(place.Origin.Repository); err != nil {
				return nil, err
			}
			return open(ctx)
		}
	}
	target, _ := resources.Repository(of.Target.Repository)
	open := setup.Target.Open
	setup.Target.Open = func(ctx context.Context) (*repo.Repository, error) {
		if err := s.check(target); err != nil {
			return nil, err
		}
		return open(ctx)
	}
	return setup, ctx.Err()
}

// future lives a job through some days, as ferry job simulate does.
func (s *service) future(ctx context.Context, resources policy.Resources, setup job.Setup, days int) (any, error) {
	return s.unattended(setup.Job.Name).foresee(ctx, chosenJob{Job: setup.Job, resources: resources, folder: "/"}, setup, days)
}

// inAll names the limit of all jobs together.
const inAll = "all"

// limit makes the limits of jobs and repositories what the resources say, also for sessions in progress.
func (s *service) limit(resources policy.Resources) {
	for _, of := range resources.Jobs {
		s.app.limits.Set("job "+of.Name, of.Effective().Bandwidth)
	}
	for _, r := range resources.Repositories {
		s.app.limits.Set("repository "+r.Name, r.Bandwidth)
	}
}

// check is an error if a repository lies where it may not, or names a secret that is not allowed: then it cannot be opened, as without a key.
func (s *service) check(r policy.Repository) error {
	if problems := s.allowed.Place(r); len(problems) > 0 {
		return policy.Problems(problems)
	}
	if problems := s.allowed.Secrets(r); len(problems) > 0 {
		return fmt.Errorf("%w: %w", job.ErrNoKey, policy.Problems(problems))
	}
	return nil
}

// unattended is the program as one job of a server uses it: it asks nobody, and what it says goes to the log.
func (s *service) unattended(name string) *app {
	with := *s.app
	to := &logLines{log: s.log.With("job", name)}
	with.out, with.errOut, with.json, with.quiet, with.unattended = to, to, false, true, true
	with.buckets, with.live = nil, nil
	with.keys = &keys{app: &with, secrets: s.app.keys.secrets, identityFiles: slices.Clone(s.app.keys.identityFiles)}
	return &with
}

// logLines logs what is written to it, a line at a time.
type logLines struct{ log *slog.Logger }

func (l *logLines) Write(text []byte) (int, error) {
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" {
			l.log.Warn(strings.TrimPrefix(line, "warning: "))
		}
	}
	return len(text), nil
}

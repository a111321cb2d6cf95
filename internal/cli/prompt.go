package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"ferry/internal/repo"
)

// promptWait is how long, in milliseconds, typing is waited for before looking whether it was interrupted.
const promptWait = 100

// canPrompt is true if a person is there to be asked.
func (a *app) canPrompt() bool {
	return !a.json && !a.unattended && isTerminal(os.Stdin) && isTerminal(a.errOut)
}

// prompt asks for a passphrase, which the terminal does not show. It is empty if none was typed.
func (a *app) prompt(ctx context.Context, question string) (repo.Passphrase, error) {
	line, err := readHidden(ctx, int(os.Stdin.Fd()), func() { fmt.Fprint(a.errOut, question) })
	fmt.Fprintln(a.errOut)
	if err != nil {
		return repo.Passphrase{}, err
	}
	defer clear(line)
	return repo.NewPassphrase(string(bytes.TrimRight(line, "\r\n"))), nil
}

// promptNew asks for a new passphrase, twice.
func (a *app) promptNew(ctx context.Context, what string) (repo.Passphrase, error) {
	for range promptTries {
		first, err := a.prompt(ctx, "new passphrase "+what+": ")
		if err != nil {
			return first, err
		}
		if first.IsEmpty() {
			break
		}
		second, err := a.prompt(ctx, "the same again: ")
		if err != nil || second.Equal(first) {
			return first, err
		}
		fmt.Fprintln(a.errOut, "They differ.")
	}
	return repo.Passphrase{}, exitWith(ExitKey, "no new passphrase was given")
}

// readHidden reads a line from a terminal that does not show it. It asks when the terminal is ready for that, and not before:
// who types fast is not to see it either.
func readHidden(ctx context.Context, terminal int, ask func()) ([]byte, error) {
	before, err := unix.IoctlGetTermios(terminal, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	hidden := *before
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ICANON | unix.ISIG
	hidden.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(terminal, unix.TCSETS, &hidden); err != nil {
		return nil, err
	}
	defer func() { _ = unix.IoctlSetTermios(terminal, unix.TCSETS, before) }() // nothing better can be done
	ask()
	line := make([]byte, 0, 4096) // a terminal has no longer lines
	for !bytes.HasSuffix(line, []byte("\n")) && len(line) < cap(line) {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(terminal), Events: unix.POLLIN}}, promptWait)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, unix.EINTR) || err == nil && ready == 0 {
			continue
		}
		if err != nil {
			return nil, err
		}
		n, err := unix.Read(terminal, line[len(line):cap(line)])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			if len(line) == 0 {
				return nil, io.ErrUnexpectedEOF
			}
			break
		}
		line = line[:len(line)+n]
	}
	return line, nil
}

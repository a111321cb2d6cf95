package cli

import (
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"ferry/internal/mover"
	"ferry/internal/repo"
)

// fullFlags are the options of a copy that reads everything from the source.
func fullFlags(command *cobra.Command, f *copyFlags) {
	command.Flags().BoolVar(&f.Full, "full", false, "read points whole from SOURCE and store each apart from all else, also if it is there already")
	command.Flags().BoolVar(&f.plain, "plain", false, "with --full: not encrypted, though the repository is (for storage that deduplicates)")
}

// checkFull gives a usage error for options that do not go together. A full copy is not compressed unless a codec is named:
// what it is for is storage that compresses and deduplicates by itself, and copies that depend on nothing.
func (f *copyFlags) checkFull(given func(flag string) bool) error {
	if f.plain && !f.Full {
		return usage("--plain is for --full: blocks that points share are encrypted where the repository is")
	}
	if f.Full && !given("codec") {
		f.codec = string(mover.CodecNone)
	}
	return nil
}

// asAsked gives a usage error if options of a new repository were named and the repository is there already, made otherwise.
func asAsked(there *repo.Repository, asked repo.Options, given func(flag string) bool) error {
	described := there.Description()
	if given("block-size") && asked.BlockSize != described.BlockSize {
		return usage("%s is there already, with blocks of %s; --block-size is for a new repository", there.Location(), humanize.IBytes(uint64(described.BlockSize)))
	}
	if hash := "hmac-sha-256"; given("sha256") && asked.SHA256 && described.Hash != hash {
		return usage("%s is there already, with ids by %s; --sha256 is for a new repository", there.Location(), described.Hash)
	}
	return nil
}

// Package repo is the Ferry repository: what a backup copy is kept in (docs/format.md).
//
// The way in is [Init] and [Open]. To write, begin an [Ingest]: it stores blocks and nodes in packs, and commits
// points. To read, list [Repository.Points] and open their objects. [Repository.Verify] proves that everything stored
// is what was copied.
//
// The rooms behind it are for this package alone: format (prelude, ids), pack (frames), tree (nodes), index (where
// a block is) and commitlog (what the repository is).
package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/keyring"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/parity"
	"ferry/internal/storage"
)

// Errors of opening and writing a repository.
var (
	// ErrNoRepository: there is no repository at the place.
	ErrNoRepository = errors.New("no Ferry repository")
	// ErrExists: there is a repository at the place already.
	ErrExists = errors.New("there is a Ferry repository already")
	// ErrDiverged: the repository's history is not the one seen before; it was rolled back or forked.
	ErrDiverged = errors.New("repository has another history than this machine has seen")
	// ErrReadOnly: the repository has features of a newer program; this one can read it and must not change it.
	ErrReadOnly = errors.New("repository was changed by a newer version of ferry, which this one can only read")
	// ErrCondemned: blocks that a commit relies on were given up meanwhile by another writer. Copying again helps.
	ErrCondemned = errors.New("blocks were given up by another writer meanwhile")
	// ErrCorrupt: bytes of the repository are not what was written.
	ErrCorrupt = format.ErrCorrupt
	// ErrNewer: the repository needs a newer program.
	ErrNewer = format.ErrNewer
	// ErrNeedsKey: the repository is encrypted, and no key was given.
	ErrNeedsKey = format.ErrNeedsKey
	// ErrForged: the checksum holds, but not what only a holder of the key can make. It is an ErrCorrupt too.
	ErrForged = format.ErrForged
)

// DefaultBlockSize of new repositories, in bytes. docs/performance.md has the measurements behind it.
const DefaultBlockSize = 128 << 10

// Options of a new repository.
type Options struct {
	// SHA256 makes ids with HMAC-SHA-256 instead of BLAKE3.
	SHA256 bool
	// BlockSize in bytes: a power of two from 4 KiB to 4 MiB; 0 means DefaultBlockSize.
	BlockSize int
	// Encrypt makes the repository encrypted, for these recipients. Empty: it is not encrypted.
	Encrypt []KeyRecipient
	// Parity makes a parity file beside each pack; nil makes none.
	Parity *Parity

	// inherited keys; nil: fresh ones.
	inherited *keyring.Ring
	sameKeys  bool
	// Lock keeps files from everyone until their time has come; nil does not.
	Lock *Lock
}

// Environment is what a repository needs from the machine it is used on.
type Environment struct {
	// CacheDir keeps copies of index segments and the last head seen. Empty: nothing is kept, and nothing noticed.
	CacheDir string
	// Now is the clock; nil means time.Now. It is information in the log and decides nothing.
	Now func() time.Time
	// Program is written in the log, such as "ferry 0.1.0".
	Program string
	// Keys are asked for when a repository is encrypted; nil: there are none.
	Keys KeySource
	// OwnsStore has Close close the store, too, once the repository was opened; else, and if it cannot be opened, the store is the
	// caller's. A process that opens repositories again and again would hold their folders open.
	OwnsStore bool

	// kit is a recovery kit, which is used instead of keys; else nil.
	kit *keyring.Kit
}

// Repository is an open repository. It is safe for parallel use.
type Repository struct {
	store       storage.Store
	description format.Description
	hasher      *format.Hasher
	// opener decrypts; nil: without a key, or nothing is encrypted.
	opener *pack.Opener
	env    Environment
	writer format.Name
	cache  *cache

	// keys of an encrypted repository; nil if there are none here.
	keys *keys
	// locked is the error of what needs the key, if it is not here.
	locked error

	mu    sync.Mutex // guards the state; held while committing
	state *commitlog.State
	// lasting is the newest entry but passing ones, as far as they were read: a repository that lacks it was rolled back.
	lasting  commitlog.Head
	diverged error
	readOnly error
	// givenUp are the files that the log condemned or deleted since the repository was opened.
	givenUp map[string]bool
	keyless []uint64
	// checkpoints are the newest one and the one before it, as far as known; 0 for none.
	checkpoints      [2]uint64
	checkpointsKnown bool
	// locks is nil where files are not locked.
	locks *locks
	// retentionAsked is done once the storage was asked whether it locks by itself.
	retentionAsked sync.Once
	// rememberedAt is the entry whose state this machine has in its cache; 0 for none.
	rememberedAt uint64
	// checkpointGeneration is that of the newest one's MAC.
	checkpointGeneration uint32

	indexing  sync.Mutex // held while the index is brought up to the state
	index     *index.Set
	indexedTo commitlog.Head
	unindexed unindexed            // what the log has said since; guarded by mu
	segments  map[format.Name]bool // segments that the index has, or that turned out damaged
	unusable  map[format.Name]bool // those that cannot be used; true if that will stay so
	// replaced are segments that the log names no more and the index keeps, since what replaced them cannot be used.
	replaced map[format.Name]commitlog.Segment
	settled  map[format.Name]bool // those that were read and checked whole since the repository was opened
	tabled   map[format.Name]bool // those that were compared with the tables of their packs
	// local are segments of this process alone, and the packs that they cover.
	local map[format.Name][]format.Name
	// spillEntries and smallSegment are the constants of these names. Tests make them small.
	spillEntries int
	smallSegment int64
	packs        map[format.Name]bool // packs that the index has, or that turned out damaged

	warnMu   sync.Mutex
	warnings []string

	files  *packFiles
	nodes  *nodeCache
	parity *parity.Coder

	// packTarget and nodePackTarget are the sizes at which packs are sealed, in bytes. Tests make them small.
	packTarget, nodePackTarget int64
	// partialsAhead is taken by each part of an unfinished copy that is read ahead, until it was looked at.
	partialsAhead chan struct{}
	// writtenDownWithin is the constant of this name. Tests make it short.
	writtenDownWithin time.Duration
	// reservePiece is the constant of this name. Tests make it small.
	reservePiece int64
	// nodePacksLimit is the constant of this name. Tests make it small.
	nodePacksLimit int64
	// leavesAhead is the constant of this name. Tests make it small.
	leavesAhead int
	// leaseless is for tests of what the lease only makes rare.
	leaseless bool
}

func newRepository(store storage.Store, env Environment, description format.Description, algorithm format.Hash, ring *keyring.Ring) *Repository {
	hasher, keys := newHasher(algorithm, description, ring)
	r := &Repository{
		store: store, description: description, hasher: hasher, env: env, writer: format.RandomName(),
		cache: newCache(env.CacheDir, description), state: commitlog.NewState(), givenUp: map[string]bool{},
		segments: map[format.Name]bool{}, packs: map[format.Name]bool{}, unusable: map[format.Name]bool{}, replaced: map[format.Name]commitlog.Segment{},
		settled: map[format.Name]bool{}, tabled: map[format.Name]bool{}, local: map[format.Name][]format.Name{}, unindexed: unindexed{everything: true},
		spillEntries: spillEntries, smallSegment: smallSegment, nodes: newNodeCache(), parity: parity.NewCoder(hasher),
		packTarget: packTarget, nodePackTarget: nodePackTarget, partialsAhead: make(chan struct{}, storage.ParallelReads(store)),
		writtenDownWithin: writtenDownWithin, reservePiece: reservePiece, nodePacksLimit: nodePacksLimit, leavesAhead: leavesAhead,
	}
	r.files = newPackFiles(store, r.packSize)
	if keys != nil {
		r.keys, r.opener = keys, pack.NewOpener(keys, hasher)
	}
	r.index = index.NewSet(description.ID, r.packEntries)
	r.index.Prefer(r.byNaming)
	return r
}

// Close releases what the repository holds, and its store if that was asked for.
func (r *Repository) Close() error {
	r.rememberState()
	r.files.close()
	r.index.Close()
	if r.env.OwnsStore {
		return r.store.Close()
	}
	return nil
}

// ID of the repository: 32 hex digits.
func (r *Repository) ID() string { return r.description.ID.String() }

// BlockSize for new objects, in bytes.
func (r *Repository) BlockSize() int64 { return int64(r.description.BlockSize) }

// Description returns what never changes about the repository.
func (r *Repository) Description() format.Description { return r.description }

// Location is what a person calls the place of the repository.
func (r *Repository) Location() string { return r.store.Location() }

// Free is how many bytes its storage has left, beside the reserve; known is false where nothing tells, as in a bucket.
func (r *Repository) Free(ctx context.Context) (free int64, known bool, err error) {
	return storage.Free(ctx, r.store)
}

// Warnings are things found while opening that did not keep it from working, such as a damaged index segment.
func (r *Repository) Warnings() []string {
	numbers := r.Keyless() // before the other lock, as everywhere
	r.warnMu.Lock()
	defer r.warnMu.Unlock()
	warnings := append([]string(nil), r.warnings...)
	if len(numbers) > 0 {
		warnings = append(warnings, keylessWarning(numbers))
	}
	return warnings
}

// warn adds a warning, unless it is there already.
func (r *Repository) warn(message string, args ...any) {
	text := fmt.Sprintf(message, args...)
	r.warnMu.Lock()
	defer r.warnMu.Unlock()
	if !slices.Contains(r.warnings, text) {
		r.warnings = append(r.warnings, text)
	}
}

// Pseudonym is the name a machine has in this repository's clear files.
func (r *Repository) Pseudonym(machine backup.MachineKey) format.Name {
	sum := r.hasher.Sum(format.ContextMachine, machine.Canonical())
	return format.Name(sum[:16])
}

// defaultDomain is the one that everything belongs to that is not sealed.
func (r *Repository) defaultDomain() format.Name { return r.description.ID }

func (env Environment) now() time.Time {
	if env.Now != nil {
		return env.Now()
	}
	return time.Now()
}

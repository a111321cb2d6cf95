package cli

import (
	"encoding/json"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/repo"
)

// What --json prints. docs/json.md documents every name, and a test compares the two. Names do not change and do not go;
// new ones may come. Lists are never null. Names that sources gave are encoded (docs/format.md section 1).

// messageJSON is one line on standard error: a warning or the error that ends the program.
type messageJSON struct {
	Warning string     `json:"warning,omitempty"`
	Error   *errorJSON `json:"error,omitempty"`
}

type errorJSON struct {
	Message  string `json:"message"`
	Hint     string `json:"hint"`
	Machine  string `json:"machine"`
	Point    string `json:"point"`
	Object   string `json:"object"`
	Offset   *int64 `json:"offset,omitempty"`
	ExitCode int    `json:"exitCode"`
	// Problems are the mistakes in a file of jobs and repositories.
	Problems []problemJSON `json:"problems"`
}

// pointsJSON is the output of points.
type pointsJSON struct {
	Points       []pointJSON `json:"points"`
	UnknownFiles int         `json:"unknownFiles"`
}

type pointJSON struct {
	ID      string      `json:"id"`
	Machine machineJSON `json:"machine"`
	Created time.Time   `json:"created"`
	Zone    string      `json:"zone"`
	State   string      `json:"state"`
	Proven  bool        `json:"proven"`
	Reason  string      `json:"reason"`
	Disks   []diskJSON  `json:"disks"`
	Origin  originJSON  `json:"origin"`
	Hops    []hopJSON   `json:"hops"`
	// Holds are what ferry points says of those on a point of a Ferry repository; left out where there are none.
	Holds []holdInfoJSON `json:"holds,omitempty"`
}

type machineJSON struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Platform string   `json:"platform"`
	Labels   []string `json:"labels"`
}

type diskJSON struct {
	Name string `json:"name"`
	Role string `json:"role"`
	Size int64  `json:"size"`
}

type originJSON struct {
	Format   string `json:"format"`
	Source   string `json:"source"`
	Location string `json:"location"`
}

type hopJSON struct {
	Repository string    `json:"repository"`
	Time       time.Time `json:"time"`
}

// copyJSON is the output of copy, also with --dry-run.
type copyJSON struct {
	Source          string       `json:"source"`
	Repository      placeJSON    `json:"repository"`
	DryRun          bool         `json:"dryRun"`
	UnknownFiles    int          `json:"unknownFiles"`
	Steps           []stepJSON   `json:"steps"`
	Copied          int          `json:"copied"`
	AlreadyThere    int          `json:"alreadyThere"`
	Failed          int          `json:"failed"`
	SourceBytesRead int64        `json:"sourceBytesRead"`
	StoredBytes     int64        `json:"storedBytes"`
	NodeBytes       int64        `json:"nodeBytes"`
	Packs           int64        `json:"packs"`
	Seconds         float64      `json:"seconds"`
	Requests        requestsJSON `json:"storageRequests"`
}

// placeJSON is a repository: its id, empty if there is none yet, and its path as it was given.
type placeJSON struct {
	ID       string `json:"id"`
	Location string `json:"location"`
}

type stepJSON struct {
	Point       string      `json:"point"`
	Machine     machineJSON `json:"machine"`
	Created     time.Time   `json:"created"`
	Action      plan.Action `json:"action"`
	Reason      string      `json:"reason"`
	Outcome     job.Outcome `json:"outcome"`
	Error       string      `json:"error"`
	Hint        string      `json:"hint"`
	Base        string      `json:"base"`
	Logical     int64       `json:"logicalBytes"`
	Read        int64       `json:"readBytes"`
	Unchanged   int64       `json:"unchangedBytes"`
	Resumed     int64       `json:"resumedBytes"`
	NewBlocks   int64       `json:"newBlocks"`
	NewBytes    int64       `json:"newBytes"`
	StoredBytes int64       `json:"storedBytes"`
	Seconds     float64     `json:"seconds"`
}

// restoreJSON is the output of restore.
type restoreJSON struct {
	Point    pointJSON      `json:"point"`
	To       string         `json:"to"`
	Files    []restoredJSON `json:"files"`
	Commands []string       `json:"commands"`
	Requests requestsJSON   `json:"storageRequests"`
}

type restoredJSON struct {
	Path   string `json:"path"`
	Role   string `json:"role"`
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Root   string `json:"root"`
	SHA256 string `json:"sha256"`
	// Damaged ranges are zeros in the file, and Map is the file beside it that says so.
	Damaged []rangeJSON `json:"damaged"`
	Map     string      `json:"map"`
}

type rangeJSON struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// repositoryJSON is the output of repo init.
type repositoryJSON struct {
	ID        string    `json:"id"`
	Location  string    `json:"location"`
	Created   time.Time `json:"created"`
	Format    int       `json:"formatVersion"`
	Hash      string    `json:"hash"`
	BlockSize int64     `json:"blockSize"`
	Encrypted bool      `json:"encrypted"`
	Parity    string    `json:"parity"`
	Lock      lockJSON  `json:"lock"`
}

// repositoryInfoJSON is the output of repo info.
type repositoryInfoJSON struct {
	repositoryJSON
	Diverged    bool         `json:"diverged"`
	Points      int          `json:"points"`
	Machines    int          `json:"machines"`
	Unfinished  int          `json:"unfinishedCopies"`
	LogEntries  int64        `json:"logEntries"`
	Packs       int          `json:"packs"`
	Stored      int64        `json:"storedBytes"`
	ParityBytes int64        `json:"parityBytes"`
	Damaged     int          `json:"damagedPoints"`
	Proven      []provenJSON `json:"proven"`
	Logical     int64        `json:"logicalBytes"`
	// Use is what --analyze found, or the last reclaim.
	Use *useJSON `json:"use,omitempty"`
	// Fragmentation is how each machine's newest point lies, and AllFragmentation the sum of them: with --analyze.
	Fragmentation    []lyingJSON   `json:"fragmentation"`
	AllFragmentation *allLyingJSON `json:"allFragmentation,omitempty"`
	// ByMachine and AllBlocks are what --analyze found: what each machine needs, and all of them together.
	ByMachine []machineUseJSON `json:"byMachine"`
	AllBlocks *blockUseJSON    `json:"allBlocks,omitempty"`
	// LastCopy is what the last copy wrote, if that is known.
	LastCopy *lastRunJSON `json:"lastCopy,omitempty"`
}

// printJSON prints a value as the command's only output.
func (a *app) printJSON(value any) error {
	encoder := json.NewEncoder(a.out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

func describePoint(p backup.Point) pointJSON {
	described := pointJSON{
		ID: p.ID.String(), Machine: describeMachine(p.Machine), Created: p.Created.UTC(), Zone: p.Zone, State: string(p.State),
		Proven: p.Proven, Reason: readable(p.Reason), Disks: []diskJSON{}, Hops: []hopJSON{},
		Origin: originJSON{Format: p.Origin.Format, Source: printable(p.Origin.Source), Location: printable(p.Origin.Location)},
	}
	for _, o := range p.Objects {
		if isContent(o) {
			described.Disks = append(described.Disks, diskJSON{Name: printable(o.Name), Role: string(o.Role), Size: o.Size})
		}
	}
	for _, hop := range p.Hops {
		described.Hops = append(described.Hops, hopJSON{Repository: hop.RepositoryID, Time: hop.Time})
	}
	return described
}

func describeMachine(m backup.Machine) machineJSON {
	described := machineJSON{ID: m.Key.String(), Name: printable(m.Name), Platform: string(m.Key.Platform), Labels: []string{}}
	for _, label := range m.Labels {
		described.Labels = append(described.Labels, printable(label))
	}
	return described
}

func describeStep(s job.StepReport) stepJSON {
	r := s.Result
	described := stepJSON{
		Point: s.Point.ID.String(), Machine: describeMachine(s.Point.Machine), Created: s.Point.Created.UTC(), Action: s.Action, Reason: readable(s.Reason),
		Outcome: s.Outcome, Logical: r.Logical, Read: r.Read, Unchanged: r.Unchanged, Resumed: r.Resumed,
		NewBlocks: r.NewBlocks, NewBytes: r.NewBytes, StoredBytes: r.Stored, Seconds: r.Took.Seconds(),
	}
	if s.Err != nil {
		described.Error, described.Hint = s.Err.Error(), backup.Hint(s.Err)
	}
	if (r.Base != backup.PointID{}) {
		described.Base = r.Base.String()
	}
	return described
}

func describePlace(r *repo.Repository) placeJSON {
	return placeJSON{ID: r.ID(), Location: r.Location()}
}

func describeRepository(r *repo.Repository) repositoryJSON {
	d := r.Description()
	return repositoryJSON{ID: r.ID(), Location: r.Location(), Created: d.Created.UTC(), Format: d.Version, Hash: d.Hash, BlockSize: r.BlockSize(), Encrypted: d.Encrypted, Parity: parityText(d.Parity), Lock: describeLock(r)}
}

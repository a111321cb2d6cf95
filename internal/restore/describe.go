package restore

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

const restoreJSON = "restore.json"

// description is restore.json.
type description struct {
	Machine    machineDescription `json:"machine"`
	Point      string             `json:"point"`
	Created    time.Time          `json:"created"`
	Zone       string             `json:"zone"`
	Origin     originDescription  `json:"origin"`
	Repository string             `json:"repository"`
	Hash       string             `json:"hash"`
	Files      []fileDescription  `json:"files"`
}

type machineDescription struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Platform string `json:"platform"`
}

type originDescription struct {
	Format   string `json:"format"`
	Source   string `json:"source"`
	Location string `json:"location"`
}

type fileDescription struct {
	Path   string `json:"path"`
	Role   string `json:"role"`
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Root   string `json:"root,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	// Damaged ranges are zeros in the file; root and sha256 are of what was stored and of what was written.
	Damaged []rangeDescription `json:"damaged,omitempty"`
	Map     string             `json:"map,omitempty"`
}

type rangeDescription struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

func writeDescription(repository *repo.Repository, point *repo.Point, dir string, files []File, options Options) error {
	d := description{
		Machine: machineDescription{
			ID: point.Machine.Key.String(), Name: backup.EncodeName(point.Machine.Name), Platform: string(point.Machine.Key.Platform),
		},
		Point: point.ID.String(), Created: point.Created, Zone: point.Zone,
		Origin: originDescription{
			Format: point.Origin.Format, Source: backup.EncodeName(point.Origin.Source), Location: backup.EncodeName(point.Origin.Location),
		},
		Repository: repository.ID(), Hash: repository.Description().Hash, Files: []fileDescription{},
	}
	for _, f := range files {
		described := fileDescription{
			Path: filepath.ToSlash(f.Path), Role: string(f.Role), Name: backup.EncodeName(f.Name), Size: f.Size, Root: f.Root, SHA256: f.SHA256,
			Map: filepath.ToSlash(f.Map),
		}
		for _, damaged := range f.Damaged {
			described.Damaged = append(described.Damaged, rangeDescription(damaged))
		}
		d.Files = append(d.Files, described)
	}
	content, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	draft, err := newDraft(filepath.Join(dir, restoreJSON))
	if err != nil {
		return err
	}
	defer draft.drop()
	if _, err := draft.file.Write(append(content, '\n')); err != nil {
		return full(err, draft.path)
	}
	return draft.publish(options.Force)
}

// Quote makes text one word for a POSIX shell. Control characters are encoded: what is printed is safe to look at. A percent sign stays,
// since names of restored files are encoded already.
func Quote(text string) string {
	text = backup.SafeText(text)
	plain := text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-+:@%,=", r)
	})
	if plain {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

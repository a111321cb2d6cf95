package repo

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/tree"
)

// Point is a restore point of a repository.
type Point struct {
	backup.Point
	// Roots has the tree of each of the point's objects, nil for those that are inline or empty.
	Roots []*tree.Root
	// Domain that the point's blocks are in, and whether it is a sealed one. CommitPoint sets them.
	Domain format.Name
	Sealed bool
	// checksum of its file, if it was read from one.
	checksum format.ID
}

// pointHeader and pointBody are the JSON of docs/format.md section 5.
type pointHeader struct {
	ID      backup.PointID `json:"id"`
	Machine format.Name    `json:"machine"`
	Created time.Time      `json:"created"`
	Domain  format.Name    `json:"domain"`
	Sealed  bool           `json:"sealed,omitempty"`
	Trees   []treeRecord   `json:"trees"`
}

type treeRecord struct {
	LeafKind  tree.Kind `json:"leafKind"`
	Height    int       `json:"height"`
	BlockSize int64     `json:"blockSize"`
	Size      int64     `json:"size"`
	Top       format.ID `json:"top"`
	Root      format.ID `json:"root"`
}

type pointBody struct {
	Machine machineRecord  `json:"machine"`
	Zone    string         `json:"zone"`
	Origin  originRecord   `json:"origin"`
	Hops    []hopRecord    `json:"hops,omitempty"`
	Objects []objectRecord `json:"objects"`
}

type machineRecord struct {
	Platform   backup.Platform `json:"platform"`
	NativeID   string          `json:"nativeId"`
	UUID       string          `json:"uuid,omitempty"`
	SourceName string          `json:"sourceName,omitempty"`
	Instance   string          `json:"instance,omitempty"`
	Name       string          `json:"name,omitempty"`
	Labels     []string        `json:"labels,omitempty"`
}

type originRecord struct {
	Format         string `json:"format"`
	Source         string `json:"source"`
	NativeID       string `json:"nativeId"`
	Location       string `json:"location,omitempty"`
	Validator      []byte `json:"validator,omitempty"`
	SourceVerified bool   `json:"sourceVerified,omitempty"`
}

type hopRecord struct {
	Repository string    `json:"repository"`
	Time       time.Time `json:"time"`
}

type objectRecord struct {
	Role       backup.Role `json:"role"`
	Name       string      `json:"name"`
	SectorSize int         `json:"sectorSize,omitempty"`
	Format     string      `json:"format,omitempty"`
	Tree       *int        `json:"tree,omitempty"`
	Inline     []byte      `json:"inline,omitempty"`
}

const (
	pointFixed = 48
	pointTail  = 64
	// pointLimit bounds a point file, in bytes.
	pointLimit = 64 << 20
)

// encodePoint makes a point's file.
func encodePoint(hasher *format.Hasher, machine format.Name, p *Point) ([]byte, error) {
	header := pointHeader{ID: p.ID, Machine: machine, Created: p.Created.UTC(), Domain: p.Domain, Sealed: p.Sealed, Trees: []treeRecord{}}
	body := pointBody{
		Machine: machineRecord{
			Platform: p.Machine.Key.Platform, NativeID: backup.EncodeName(p.Machine.Key.NativeID), UUID: backup.EncodeName(p.Machine.Key.UUID),
			SourceName: backup.EncodeName(p.Machine.Key.SourceName), Instance: backup.EncodeName(p.Machine.Key.Instance),
			Name: backup.EncodeName(p.Machine.Name), Labels: encodeNames(p.Machine.Labels),
		},
		Zone: p.Zone,
		Origin: originRecord{
			Format: p.Origin.Format, Source: backup.EncodeName(p.Origin.Source), NativeID: backup.EncodeName(p.Origin.NativePointID),
			Location: backup.EncodeName(p.Origin.Location), Validator: p.Origin.Validator, SourceVerified: p.Origin.SourceVerified,
		},
		Objects: []objectRecord{},
	}
	for _, hop := range p.Hops {
		body.Hops = append(body.Hops, hopRecord{Repository: hop.RepositoryID, Time: hop.Time.UTC()})
	}
	for i, object := range p.Objects {
		record := objectRecord{Role: object.Role, Name: backup.EncodeName(object.Name), SectorSize: object.SectorSize, Format: object.Format, Inline: object.Inline}
		if root := p.Roots[i]; root != nil {
			index := len(header.Trees)
			record.Tree = &index
			header.Trees = append(header.Trees, treeRecord{
				LeafKind: root.Kind, Height: root.Height, BlockSize: root.BlockSize, Size: root.Size, Top: root.Top, Root: root.ID(hasher),
			})
		}
		body.Objects = append(body.Objects, record)
	}
	headerJSON, err := json.Marshal(header)
	if err != nil {
		return nil, err
	}
	bodyJSON, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	var salt [format.SaltSize]byte
	if hasher.Generation() != 0 {
		rand.Read(salt[:]) // never fails: crypto/rand ends the program instead
	}
	return sealPoint(hasher, salt, p.ID, headerJSON, bodyJSON)
}

func encodeNames(names []string) []string {
	var encoded []string
	for _, name := range names {
		encoded = append(encoded, backup.EncodeName(name))
	}
	return encoded
}

// decodePoint reads a point's file and checks everything in it that can be checked without its blocks. It needs the key.
func decodePoint(hasher *format.Hasher, raw []byte) (*Point, pointHeader, error) {
	sealed, err := openPoint(hasher, raw)
	if err != nil {
		return nil, sealed.header, err
	}
	header := sealed.header
	bodyJSON, err := sealed.body(hasher)
	if err != nil {
		return nil, header, err
	}
	var body pointBody
	if err := unmarshalText(bodyJSON, &body); err != nil {
		return nil, header, err
	}
	p, err := body.point(header)
	if err != nil {
		return nil, header, err
	}
	if err := p.attach(hasher, header, body); err != nil {
		return nil, header, err
	}
	machine := hasher.Sum(format.ContextMachine, p.Machine.Key.Canonical())
	if format.Name(machine[:16]) != header.Machine || backup.NewPointID(p.Machine.Key, p.Origin.NativePointID) != p.ID {
		return nil, header, fmt.Errorf("%w: point has an id that is not its machine's and origin's", format.ErrCorrupt)
	}
	return p, header, nil
}

// point turns the records into the vocabulary, decoding names.
func (body pointBody) point(header pointHeader) (*Point, error) {
	names := []string{
		body.Machine.NativeID, body.Machine.UUID, body.Machine.SourceName, body.Machine.Instance, body.Machine.Name,
		body.Origin.Source, body.Origin.NativeID, body.Origin.Location,
	}
	for i := range names {
		decoded, err := backup.DecodeName(names[i])
		if err != nil {
			return nil, fmt.Errorf("%w: point: %w", format.ErrCorrupt, err)
		}
		names[i] = decoded
	}
	p := &Point{Domain: header.Domain, Sealed: header.Sealed, Point: backup.Point{
		ID: header.ID, Created: header.Created.UTC(), Zone: body.Zone, State: backup.StateComplete, Proven: true,
		Machine: backup.Machine{Name: names[4], Key: backup.MachineKey{
			Platform: body.Machine.Platform, NativeID: names[0], UUID: names[1], SourceName: names[2], Instance: names[3],
		}},
		Origin: backup.Origin{
			Format: body.Origin.Format, Source: names[5], NativePointID: names[6], Location: names[7],
			Validator: body.Origin.Validator, SourceVerified: body.Origin.SourceVerified,
		},
	}}
	for _, label := range body.Machine.Labels {
		decoded, err := backup.DecodeName(label)
		if err != nil {
			return nil, fmt.Errorf("%w: point: %w", format.ErrCorrupt, err)
		}
		p.Machine.Labels = append(p.Machine.Labels, decoded)
	}
	for _, hop := range body.Hops {
		p.Hops = append(p.Hops, backup.Hop{RepositoryID: hop.Repository, Time: hop.Time})
	}
	return p, nil
}

// attach adds the objects and checks their trees' roots.
func (p *Point) attach(hasher *format.Hasher, header pointHeader, body pointBody) error {
	roots, err := header.roots()
	if err != nil {
		return err
	}
	for i, t := range header.Trees {
		if roots[i].ID(hasher) != t.Root {
			return fmt.Errorf("%w: point has a tree whose root id differs", format.ErrCorrupt)
		}
	}
	for _, record := range body.Objects {
		name, err := backup.DecodeName(record.Name)
		if err != nil {
			return fmt.Errorf("%w: point: %w", format.ErrCorrupt, err)
		}
		object := backup.Object{
			Role: record.Role, Name: name, SectorSize: record.SectorSize, Format: record.Format, Inline: record.Inline, Size: int64(len(record.Inline)),
		}
		if len(record.Inline) > backup.InlineLimit || (record.Tree != nil && len(record.Inline) > 0) {
			return fmt.Errorf("%w: point has an object with %d bytes of inline content that it cannot have", format.ErrCorrupt, len(record.Inline))
		}
		var root *tree.Root
		if record.Tree != nil {
			if *record.Tree < 0 || *record.Tree >= len(roots) {
				return fmt.Errorf("%w: point has an object of tree %d", format.ErrCorrupt, *record.Tree)
			}
			root = &roots[*record.Tree]
			object.Size, object.Shifting = root.Size, root.Kind == tree.KindStream
		}
		p.Objects = append(p.Objects, object)
		p.Roots = append(p.Roots, root)
	}
	return nil
}

// matches returns an error unless the file is the point that the log names.
func (h pointHeader) matches(entry commitlog.Point) error {
	if h.ID != entry.ID || h.Machine != entry.Machine || !h.Created.Equal(entry.Created) || !strings.HasPrefix(entry.File(), "points/") {
		return fmt.Errorf("%w: point file is another point than the log says", format.ErrCorrupt)
	}
	return nil
}

package image

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ferry/internal/backup"
)

// TestRandomChainsAgainstQEMU lets QEMU's own programs do to chains of images what comes to their minds, and compares
// every state with what qemu-img reads: bytes, zeros, and what is said to be unchanged since each earlier point.
// FERRY_RANDOM_CHAINS=<first seed>,<count> runs others than the usual few.
func TestRandomChainsAgainstQEMU(t *testing.T) {
	first, count := uint64(1), uint64(4)
	if testing.Short() {
		count = 1
	}
	if other := os.Getenv("FERRY_RANDOM_CHAINS"); other != "" {
		from, many, _ := strings.Cut(other, ",")
		var err, err2 error
		first, err = strconv.ParseUint(from, 10, 64)
		count, err2 = strconv.ParseUint(many, 10, 64)
		if err != nil || err2 != nil {
			t.Fatalf("FERRY_RANDOM_CHAINS=%s", other)
		}
	}
	for seed := first; seed < first+count; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := &randomChain{t: t, rand: rand.New(rand.NewPCG(seed, 0)), dir: t.TempDir(), snapshots: map[string][]byte{}}
			c.run()
		})
	}
}

// randomChain is one machine's chain, in the making.
type randomChain struct {
	t    *testing.T
	rand *rand.Rand
	dir  string
	// names of the files, the lowest first, and each one's cluster size; 0 of a raw file.
	names    []string
	clusters []int
	// old is true if the top is of version 2.
	old bool
	// copied are the points that were read so far, each with its content.
	copied []copiedState
	// snapshots are what internal snapshots have, by their names. qemu-img shows them in the size that the disk has now.
	snapshots map[string][]byte
	// done says what was done, for messages.
	done []string
}

type copiedState struct {
	base    backup.Base
	content []byte
}

func (c *randomChain) run() {
	defer func() {
		if c.t.Failed() {
			c.t.Logf("in this order:\n%s", strings.Join(c.done, "\n"))
		}
	}()
	c.bottom()
	for range 2 + c.rand.IntN(4) {
		for range 1 + c.rand.IntN(3) {
			c.change()
			c.check()
		}
		c.overlay()
		c.check()
	}
}

// tool runs one of QEMU's programs and takes it down.
func (c *randomChain) tool(command ...string) {
	c.t.Helper()
	c.done = append(c.done, strings.Join(command, " "))
	tool(c.t, c.dir, command...)
}

func (c *randomChain) top() string { return c.names[len(c.names)-1] }

// pick returns one of the choices.
func (c *randomChain) pick(choices ...string) string { return choices[c.rand.IntN(len(choices))] }

// size of a disk: whole sectors, and not often whole clusters.
func (c *randomChain) size() string { return fmt.Sprint((1 + c.rand.IntN(10000)) * 512) }

// options of a new image.
func (c *randomChain) options(backing bool) string {
	cluster := []int{512, 4096, 16384, 65536, 65536, 1 << 20, 2 << 20}[c.rand.IntN(7)]
	options := []string{fmt.Sprintf("cluster_size=%d", cluster)}
	c.old = c.rand.IntN(5) == 0
	switch {
	case c.old:
		options = append(options, "compat=0.10")
	default:
		if cluster >= 16384 && c.rand.IntN(2) == 0 {
			options = append(options, "extended_l2=on")
		}
		options = append(options, "compression_type="+c.pick("zlib", "zstd"), "lazy_refcounts="+c.pick("on", "off"),
			"refcount_bits="+c.pick("16", "16", "64"))
	}
	if !backing || strings.Contains(strings.Join(options, ","), "extended_l2") {
		options = append(options, "preallocation="+c.pick("off", "metadata"))
	}
	c.clusters = append(c.clusters, cluster)
	return strings.Join(options, ",")
}

// bottom makes the chain's lowest file.
func (c *randomChain) bottom() {
	if c.rand.IntN(4) == 0 {
		c.names, c.clusters = []string{"0.raw"}, []int{0}
		c.tool("qemu-img", "create", "-q", "-f", "raw", "0.raw", c.size())
		return
	}
	c.names = []string{"0.qcow2"}
	c.tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", c.options(false), "0.qcow2", c.size())
}

// overlay puts a new file on the chain, of any size.
func (c *randomChain) overlay() {
	kind := "qcow2"
	if strings.HasSuffix(c.top(), ".raw") {
		kind = "raw"
	}
	name := fmt.Sprintf("%d.qcow2", len(c.names))
	command := []string{"qemu-img", "create", "-q", "-f", "qcow2", "-o", c.options(true), "-b", c.top(), "-F", kind, name}
	if c.rand.IntN(2) == 0 {
		command = append(command, c.size())
	}
	c.tool(command...)
	c.names = append(c.names, name)
}

// change does something to the top.
func (c *randomChain) change() {
	name, raw := c.top(), strings.HasSuffix(c.top(), ".raw")
	switch what := c.rand.IntN(20); {
	case what < 14 || raw:
		c.write()
	case what < 16:
		c.resize()
	case what == 16:
		snapshot := fmt.Sprint("s", len(c.done))
		c.tool("qemu-img", "snapshot", "-c", snapshot, name)
		c.snapshots[snapshot] = c.reference(name)
	case what == 17 && !c.old:
		c.tool("qemu-img", "bitmap", "--add", name, fmt.Sprint("b", len(c.done)))
	case what == 18 && len(c.names) > 1:
		c.tool("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", name)
		c.tool("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", c.names[len(c.names)-2], "-F", c.below(), name)
	default:
		c.tool("qemu-img", "check", "-q", "-r", "all", "-f", "qcow2", name)
	}
}

// below is the format of the file that the top stands on.
func (c *randomChain) below() string {
	if strings.HasSuffix(c.names[len(c.names)-2], ".raw") {
		return "raw"
	}
	return "qcow2"
}

// resize makes the top's disk larger or smaller.
func (c *randomChain) resize() {
	before := c.reference(c.top())
	command := []string{"qemu-img", "resize", "-q", "-f", "qcow2"}
	size := (1 + c.rand.IntN(10000)) * 512
	if size < len(before) {
		command = append(command, "--shrink")
	} else if c.rand.IntN(2) == 0 {
		command = append(command, "--preallocation=metadata")
	}
	command = append(command, c.top(), fmt.Sprint(size))
	c.try(command...)
}

// try is tool for what QEMU may refuse: compressed clusters in place of others, or resizing images of version 2 that have
// snapshots. The image is compared all the same.
func (c *randomChain) try(command ...string) {
	c.done = append(c.done, strings.Join(command, " "))
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = c.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		c.done = append(c.done, fmt.Sprintf("  %v: %s", err, out))
	}
}

// write writes, zeroes, discards and compresses, with and without a clean end.
func (c *randomChain) write() {
	content := c.reference(c.top())
	sectors, cluster := len(content)/512, c.clusters[len(c.clusters)-1]
	kind := "qcow2"
	if cluster == 0 {
		kind, cluster = "raw", 4096
	}
	command := []string{"qemu-io", "-f", kind, "-d", c.pick("unmap", "ignore")}
	for range 1 + c.rand.IntN(8) {
		from := c.rand.IntN(sectors)
		length := 1 + c.rand.IntN(min(sectors-from, []int{1, 8, 64, 256, 4000}[c.rand.IntN(5)]))
		where := fmt.Sprintf("%d %d", from*512, length*512)
		if c.rand.IntN(3) == 0 { // whole clusters
			at := from * 512 / cluster * cluster
			where = fmt.Sprintf("%d %d", at, min(cluster*(1+c.rand.IntN(3)), len(content)-at))
		}
		pattern := 1 + c.rand.IntN(255)
		switch c.rand.IntN(9) {
		case 0:
			command = append(command, "-c", "write -z "+where)
		case 1:
			command = append(command, "-c", "write -z -u "+where)
		case 2:
			command = append(command, "-c", "discard "+where)
		case 3:
			command = append(command, "-c", "write -P 0 "+where)
		case 4:
			if kind == "qcow2" {
				at := from * 512 / cluster * cluster
				command = append(command, "-c", fmt.Sprintf("write -c -P %d %d %d", pattern, at, min(cluster, len(content)-at)))
				continue
			}
			fallthrough
		default:
			command = append(command, "-c", fmt.Sprintf("write -P %d %s", pattern, where))
		}
	}
	if c.rand.IntN(10) == 0 && kind == "qcow2" {
		// A process that is killed leaves the image dirty.
		command = append(command, "-c", "flush", "-c", "abort")
	}
	c.try(append(command, c.top())...)
}

// reference is what qemu-img reads of an image.
func (c *randomChain) reference(name string) []byte {
	c.t.Helper()
	kind := "qcow2"
	if strings.HasSuffix(name, ".raw") {
		kind = "raw"
	}
	tool(c.t, c.dir, "qemu-img", "convert", "-f", kind, "-O", "raw", name, ".reference")
	content, err := os.ReadFile(filepath.Join(c.dir, ".reference"))
	if err != nil {
		c.t.Fatal(err)
	}
	return content
}

// check compares all points, each with every earlier one as base.
func (c *randomChain) check() {
	c.t.Helper()
	s := scanDir(c.t, c.dir)
	for _, p := range s.points {
		if p.State != backup.StateComplete {
			c.t.Fatalf("%s: %s: %s", p.Origin.NativePointID, p.State, p.Reason)
		}
		state := p.Opener.(*opener).disks[0]
		var want []byte
		if state.snapshot == active {
			want = c.reference(state.top.Path)
		} else {
			want = c.snapshots[state.top.snapshots[state.snapshot].Name]
		}
		content := opened(c.t, p)
		d := disk(c.t, content, 0)
		got, _ := readDisk(c.t, d, nil, nil)
		if !bytes.Equal(got, want) {
			c.t.Fatalf("%s: %d bytes, qemu-img has %d", p.Origin.NativePointID, len(got), len(want))
		}
		for range 5 {
			from := c.rand.IntN(len(want))
			piece := make([]byte, 1+c.rand.IntN(min(200000, len(want)-from)))
			if n, err := d.ReadAt(piece, int64(from)); err != nil || n < len(piece) || !bytes.Equal(piece, want[from:from+n]) {
				c.t.Fatalf("%s: %d bytes at %d: %d, %v", p.Origin.NativePointID, len(piece), from, n, err)
			}
		}
		for k := range c.copied {
			readDisk(c.t, d, &c.copied[k].base, c.copied[k].content)
		}
		c.copied = append(c.copied, copiedState{backup.Base{ID: p.ID, Validator: content.Validator()}, want})
		content.Close()
	}
	s.root.Close()
	if len(c.copied) > 20 {
		c.copied = c.copied[len(c.copied)-20:]
	}
	tick()
}

package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// cluster is what hypervisors keep track of changes by.
	cluster = 64 << 10
	page    = 4 << 10
	// databaseShare is how much larger the database is than what changes in it: one cluster in so many is written to.
	databaseShare = 6
	// longestRun of clusters that are written one after the other, as files are.
	longestRun = 64
)

// change makes an image's next state: it overwrites places that hold data, in size bytes of clusters, and returns how many
// bytes the clusters have that it touched. Half of them are files written anew, in runs of up to 4 MiB; the other half
// have single pages changed, at random all over a database. The same seed does the same to the same image.
func change(image string, size int64, seed uint64) (touched int64, err error) {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	held, err := clustersWithData(file)
	if err != nil {
		return 0, err
	}
	wanted := int(size / cluster)
	if len(held) < 2*wanted || wanted < 2 {
		return 0, fmt.Errorf("%s has %d clusters with data; %d cannot be changed in it", image, len(held), wanted)
	}
	c := &changer{
		file: file, held: held, random: rand.New(rand.NewPCG(0xC4A9E, seed)), seen: map[int64]bool{},
	}
	c.words = vocabulary(c.random)
	if err := c.writeFiles(wanted / 2); err != nil {
		return 0, err
	}
	err = c.writePages(wanted - len(c.seen))
	return int64(len(c.seen)) * cluster, err
}

type changer struct {
	file   *os.File
	held   []int64
	random *rand.Rand
	words  []string
	seen   map[int64]bool
	kinds  int
}

// fresh makes new content, by turns text and noise.
func (c *changer) fresh(size int) []byte {
	c.kinds++
	if c.kinds%2 == 0 {
		return noise(nil, c.random, size)
	}
	return text(nil, c.random, c.words, size)
}

func (c *changer) writeFiles(wanted int) error {
	for len(c.seen) < wanted {
		run := min(1+c.random.IntN(longestRun), wanted-len(c.seen))
		content := c.fresh(run * cluster)
		for i, at := range c.held[c.random.IntN(len(c.held)-run):][:run] {
			if c.seen[at] {
				continue
			}
			c.seen[at] = true
			if _, err := c.file.WriteAt(content[i*cluster:][:cluster], at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *changer) writePages(wanted int) error {
	database := min(wanted*databaseShare, len(c.held))
	first := c.random.IntN(len(c.held) - database + 1)
	for _, i := range c.random.Perm(database) {
		if wanted == 0 {
			break
		}
		at := c.held[first+i]
		if c.seen[at] {
			continue
		}
		c.seen[at] = true
		wanted--
		if _, err := c.file.WriteAt(c.fresh(page), at+page*int64(c.random.IntN(cluster/page))); err != nil {
			return err
		}
	}
	return nil
}

// clustersWithData lists the offsets of the whole clusters that a sparse file has data in.
func clustersWithData(file *os.File) ([]int64, error) {
	var clusters []int64
	for offset := int64(0); ; {
		start, err := file.Seek(offset, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return clusters, nil
		}
		if err != nil {
			return nil, err
		}
		if offset, err = file.Seek(start, unix.SEEK_HOLE); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		for at := (start + cluster - 1) / cluster * cluster; at+cluster <= offset; at += cluster {
			clusters = append(clusters, at)
		}
	}
}

package vma

import "math/bits"

// clustersPerPage is how many clusters one page of a clusterSet covers: 2 GiB of a device in 4 KiB of memory.
const clustersPerPage = 32768

// clusterSet remembers which clusters of a device came. Its pages appear when their first cluster comes and go when
// their last one did, so that an archive whose clusters about ascend needs a few pages whatever its devices' size.
type clusterSet struct {
	pages []*clusterPage
	count int64
	// open counts the pages that take memory: some of their clusters came, and not all.
	open int
}

type clusterPage struct {
	count int
	bits  [clustersPerPage / 64]uint64
}

// fullPage stands for every page whose clusters all came. It is never written to.
var fullPage = &clusterPage{count: clustersPerPage}

// add returns false if the cluster was there already. The caller bounds the number.
func (s *clusterSet) add(cluster int64) bool {
	index, within := cluster/clustersPerPage, uint(cluster%clustersPerPage)
	for int64(len(s.pages)) <= index {
		s.pages = append(s.pages, nil)
	}
	page := s.pages[index]
	switch page {
	case fullPage:
		return false
	case nil:
		page = new(clusterPage)
		s.pages[index] = page
		s.open++
	}
	word, bit := &page.bits[within/64], uint64(1)<<(within%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	page.count++
	if page.count == clustersPerPage {
		s.pages[index] = fullPage
		s.open--
	}
	s.count++
	return true
}

// firstMissing returns the lowest cluster that did not come.
func (s *clusterSet) firstMissing() int64 {
	for index, page := range s.pages {
		base := int64(index) * clustersPerPage
		switch page {
		case nil:
			return base
		case fullPage:
			continue
		}
		for i, word := range page.bits {
			if ^word != 0 {
				return base + int64(i)*64 + int64(bits.TrailingZeros64(^word))
			}
		}
	}
	return int64(len(s.pages)) * clustersPerPage
}

package cli

import (
	"sync"

	"ferry/internal/storage"
	"ferry/internal/storage/s3"
)

// bucketList is the buckets that were opened: sources are, several at once. Of one that is nil nobody asks.
type bucketList struct {
	mu     sync.Mutex
	stores []*s3.Store
}

func (l *bucketList) add(store *s3.Store) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stores = append(l.stores, store)
}

// requests adds up what was asked of them so far.
func (l *bucketList) requests() (all storage.Requests) {
	if l == nil {
		return all
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, bucket := range l.stores {
		all = all.Add(bucket.Requests())
	}
	return all
}

// requestsJSON is what a command asked of the servers of its buckets.
type requestsJSON struct {
	Get     int64 `json:"get"`
	Head    int64 `json:"head"`
	List    int64 `json:"list"`
	Put     int64 `json:"put"`
	Delete  int64 `json:"delete"`
	Lock    int64 `json:"lock"`
	Other   int64 `json:"other"`
	Total   int64 `json:"total"`
	Retried int64 `json:"retried"`
}

// requests adds up what was asked so far.
func (a *app) requests() requestsJSON {
	all := a.buckets.requests()
	return requestsJSON{
		Get: all.Get, Head: all.Head, List: all.List, Put: all.Put, Delete: all.Delete, Lock: all.Lock, Other: all.Other,
		Total: all.Total(), Retried: all.Retried,
	}
}

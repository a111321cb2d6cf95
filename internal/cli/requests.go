package cli

import "ferry/internal/storage"

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
	var all storage.Requests
	for _, bucket := range a.buckets {
		all = all.Add(bucket.Requests())
	}
	return requestsJSON{
		Get: all.Get, Head: all.Head, List: all.List, Put: all.Put, Delete: all.Delete, Lock: all.Lock, Other: all.Other,
		Total: all.Total(), Retried: all.Retried,
	}
}

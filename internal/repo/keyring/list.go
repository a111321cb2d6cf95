package keyring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ferry/internal/storage"
)

// A listing may lag behind what was written, and key files have names that nobody can guess. So each change of what key files
// there are makes a list of them under the next number (docs/format.md, section 13): a name that can be guessed, is read as soon
// as it was written, and is created only if absent, so that no change is lost. Lists are hints all the same: a key file is one by
// what is in it.
//
//  1. Begin with the greatest number that a listing shows, or with 1.
//  2. Read by name from there on, until two in a row are not there. The last one counts.
//  3. To change it, create the next number. If it is taken meanwhile, go on from 2 and change that.
//  4. Create the number after it with the same list. If it is taken meanwhile, that one has the change, too.
//
// So one that is lost hides nothing.
type keyList struct {
	// number of the newest list; 0: there is none.
	number int
	// files that it names, those written last at the end. They may not be there.
	files []File
	// unread is why the list of that number, which is there, was not read; the files are those of the one before it then.
	unread error
}

const (
	marks      = "marks/"
	listPrefix = marks + "keys-"
	listDigits = 6
	lastList   = 999999
	// maxNamed is how many key files a list names.
	maxNamed = maxRead
	// maxList bounds what is read of a list, in bytes.
	maxList = 64 * maxNamed
	// maxLists is how many are tried behind those that a listing shows.
	maxLists = 4096
)

func listName(number int) string { return fmt.Sprintf("%s%0*d", listPrefix, listDigits, number) }

// parseList reads the path of a list; false for other files.
func parseList(name string) (int, bool) {
	digits, is := strings.CutPrefix(name, listPrefix)
	number, err := strconv.Atoi(digits)
	return number, is && err == nil && number > 0 && number <= lastList && listName(number) == name
}

// look finds the key files, those that a listing shows and those that the newest list names, in no order, and that list.
func look(ctx context.Context, store storage.Store) ([]File, keyList, error) {
	var files []File
	var newest keyList
	for info, err := range store.List(ctx, Folder) {
		if err != nil {
			return nil, keyList{}, err
		}
		if f, ok := ParseFile(info.Name); ok {
			files = append(files, f)
		}
	}
	for info, err := range store.List(ctx, marks) {
		if number, ok := parseList(info.Name); ok && err == nil { // an error ends it: some may be missing
			newest.number = max(newest.number, number)
		}
	}
	newest, err := newest.forward(ctx, store)
	if err == nil && newest.unread != nil && newest.number > 1 {
		newest.files, err = readList(ctx, store, newest.number-1)
		if err != nil {
			err = cmp.Or(passing(err), passing(newest.unread))
		}
	}
	if err != nil {
		return nil, keyList{}, err
	}
	for _, f := range newest.files {
		if !slices.Contains(files, f) {
			files = append(files, f)
		}
	}
	return files, newest, ctx.Err()
}

// passing returns an error of the storage that says nothing of the file: that it is not there, or no such file, is nil.
func passing(err error) error {
	if storage.Missing(err) || errors.Is(err, storage.ErrTooLarge) {
		return nil
	}
	return err
}

func readList(ctx context.Context, store storage.Store, number int) ([]File, error) {
	content, err := storage.ReadAll(ctx, store, listName(number), maxList)
	if err != nil {
		return nil, err
	}
	return parseNames(content), nil
}

// forward goes on to the newest list from the number of one that exists. One that cannot be read is passed over: the one before it
// or behind it has what it had. Where the storage does not give the last that is asked for, there may be more, and that is an error.
func (l keyList) forward(ctx context.Context, store storage.Store) (keyList, error) {
	var last error
	first, unread := max(1, l.number), 0
	for number := first; number <= min(first+maxLists, lastList) && unread < 2; number++ {
		var files []File
		files, last = readList(ctx, store, number)
		switch {
		case last == nil:
			l, unread = keyList{number: number, files: files}, 0
		case number == l.number:
			l.unread = last
		default:
			unread++
		}
	}
	return l, passing(last)
}

func parseNames(content []byte) (files []File) {
	for line := range strings.Lines(string(content)) {
		if file, is := ParseFile(Folder + strings.TrimSuffix(line, "\n")); is && len(files) < maxNamed {
			files = append(files, file)
		}
	}
	return files
}

// change makes the next list of what change makes of the newest one, which must have been read: who made it may be about to make
// the one after it, and takes one that is there for his own change's.
func (l keyList) change(ctx context.Context, store storage.Store, change func([]File) []File) error {
	for {
		if err := passing(l.unread); err != nil {
			return err
		}
		files := change(slices.Clone(l.files))
		if slices.Equal(files, l.files) || l.number >= lastList { // somebody made that one to do harm
			return nil
		}
		next := keyList{number: l.number + 1, files: files[max(0, len(files)-maxNamed):]}
		var text strings.Builder
		for _, file := range next.files {
			fmt.Fprintln(&text, file.base())
		}
		err := store.Put(ctx, listName(next.number), []byte(text.String()))
		if err == nil && next.number < lastList {
			err = store.Put(ctx, listName(next.number+1), []byte(text.String()))
			if errors.Is(err, storage.ErrExists) {
				return nil // somebody has changed the first meanwhile
			}
		}
		if !errors.Is(err, storage.ErrExists) {
			return err
		}
		if l, err = (keyList{number: next.number, files: l.files}).forward(ctx, store); err != nil {
			return err
		}
	}
}

// with adds files that are not there yet.
func with(files []File) func([]File) []File {
	return func(there []File) []File {
		for _, file := range files {
			if !slices.Contains(there, file) {
				there = append(there, file)
			}
		}
		return there
	}
}

// without leaves out files.
func without(is func(File) bool) func([]File) []File {
	return func(there []File) []File { return slices.DeleteFunc(there, is) }
}

// relist changes the newest list.
func relist(ctx context.Context, store storage.Store, change func([]File) []File) error {
	_, l, err := look(ctx, store)
	if err != nil {
		return err
	}
	return l.change(ctx, store, change)
}

// settle makes it last that key files were deleted. That a list still names them costs a try to read them.
func settle(ctx context.Context, store storage.Store, deleted func(File) bool) error {
	if err := storage.SyncDeletes(ctx, store, Folder); err != nil {
		return err
	}
	_ = relist(ctx, store, without(deleted))
	return nil
}

package catalog

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"ferry/internal/backup"
)

func TestOpenMakesAndOpensAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, at place) {
		clock := newClock()
		first, err := Open(context.Background(), at.location, Options{Now: clock.now})
		must(t, err)
		put, err := first.Resources.Put(t.Context(), "Job", "offsite", "kind: Job\n", 0)
		must(t, err)
		must(t, first.Close())
		got, err := at.open(t, clock).Resources.Get(t.Context(), "Job", "offsite")
		if must(t, err); got != put {
			t.Errorf("read back %+v, want %+v", got, put)
		}
	})
}

// Several processes that start at once on an empty database make it once.
func TestOpenAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, at place) {
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				c, err := Open(context.Background(), at.location, Options{})
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				if _, err := c.Resources.List(context.Background(), false, "Job"); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	})
}

func TestSQLiteIsDurableAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd name?mode=memory&#%41", "catalog.db")
	must(t, os.Mkdir(filepath.Dir(path), 0o700))
	c := place{location: path}.open(t, newClock())
	for _, check := range []struct {
		db           *sql.DB
		pragma, want string
	}{
		{c.db.writer, "journal_mode", "wal"}, {c.db.writer, "synchronous", "2"}, {c.db.writer, "foreign_keys", "1"}, {c.db.writer, "busy_timeout", "10000"},
		{c.db.reader, "query_only", "1"}, {c.db.reader, "foreign_keys", "1"},
	} {
		var got string
		must(t, check.db.QueryRow("PRAGMA "+check.pragma).Scan(&got))
		if got != check.want {
			t.Errorf("%s is %s, want %s", check.pragma, got, check.want)
		}
	}
	if n := c.db.writer.Stats().MaxOpenConnections; n != 1 {
		t.Errorf("%d write handles", n)
	}
	if n := c.db.reader.Stats().MaxOpenConnections; n < 2 {
		t.Errorf("%d readers", n)
	}
	info, err := os.Stat(path)
	if must(t, err); info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v", info.Mode())
	}
	must(t, c.Check(t.Context()))
}

// What is not ours is refused with a hint, and left as it was.
func TestOpenRefusesForeignFiles(t *testing.T) {
	folder := t.TempDir()
	text := filepath.Join(folder, "notes.txt")
	must(t, os.WriteFile(text, bytes.Repeat([]byte("not a database at all\n"), 500), 0o644))
	other := filepath.Join(folder, "other.db")
	exec := func(path string, statements ...string) {
		db, err := sql.Open("sqlite", path)
		must(t, err)
		defer db.Close()
		for _, statement := range statements {
			_, err := db.Exec(statement)
			must(t, err)
		}
	}
	exec(other, "CREATE TABLE tasks (id INTEGER)")
	marked := filepath.Join(folder, "marked.db")
	exec(marked, "PRAGMA application_id = 77", "CREATE TABLE t (id INTEGER)", "DROP TABLE t")
	for _, c := range []struct {
		path string
		want error
	}{{text, ErrCorrupt}, {other, ErrForeign}, {marked, ErrForeign}, {folder, ErrForeign}} {
		before, _ := os.ReadFile(c.path)
		_, err := Open(t.Context(), c.path, Options{})
		if !errors.Is(err, c.want) || backup.Hint(err) == "" {
			t.Errorf("%s: %v, hint %q", c.path, err, backup.Hint(err))
		}
		if after, _ := os.ReadFile(c.path); !bytes.Equal(before, after) {
			t.Errorf("%s was changed", c.path)
		}
	}
	if _, err := Open(t.Context(), filepath.Join(folder, "missing", "catalog.db"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
}

func TestOpenRefusesForeignPostgres(t *testing.T) {
	location := postgresURL(t)
	db, err := sql.Open("pgx", location)
	must(t, err)
	defer db.Close()
	_, err = db.Exec("CREATE TABLE tasks (id BIGINT)")
	must(t, err)
	if _, err := Open(t.Context(), location, Options{}); !errors.Is(err, ErrForeign) || backup.Hint(err) == "" {
		t.Errorf("%v, hint %q", err, backup.Hint(err))
	}
}

func TestPasswordsStayOutOfErrors(t *testing.T) {
	for _, location := range []string{"postgres://ferry:s3cret@127.0.0.1:1/ferry", "postgres://ferry:s3cret@host:bad/ferry"} {
		_, err := Open(t.Context(), location, Options{})
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("error %v", err)
		}
	}
}

func TestOpenRefusesANewerSchema(t *testing.T) {
	onBoth(t, func(t *testing.T, at place) {
		c := at.open(t, newClock())
		_, err := c.db.writer.Exec("INSERT INTO " + schemaTable + " (version_id, is_applied) VALUES (99999, " + map[bool]string{true: "true", false: "1"}[at.postgres] + ")")
		must(t, err)
		if _, err := Open(t.Context(), at.location, Options{}); !errors.Is(err, ErrNewer) || backup.Hint(err) == "" {
			t.Errorf("%v, hint %q", err, backup.Hint(err))
		}
	})
}

// A damaged file is found when it is opened, when the damaged part is read, or by Check; in each case the error says so.
func TestDamageIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	c, err := Open(t.Context(), path, Options{})
	must(t, err)
	for i := range 300 {
		_, err := c.Resources.Put(t.Context(), "Job", strings.Repeat("x", 200)+string(rune('a'+i%26))+strings.Repeat("y", i%50)+string(rune('a'+i/26)), strings.Repeat("#", 3000), 0)
		must(t, err)
	}
	must(t, c.Close())
	whole, err := os.ReadFile(path)
	must(t, err)
	found, samples := 0, 25
	if testing.Short() {
		samples = 8
	}
	const pageSize = 4096
	for page := 0; page*pageSize < len(whole); page += max(1, len(whole)/pageSize/samples) {
		damaged := bytes.Clone(whole)
		copy(damaged[page*pageSize:], bytes.Repeat([]byte{0xa5}, pageSize))
		must(t, os.WriteFile(path, damaged, 0o600))
		err := openAndCheck(t, path)
		if err == nil {
			continue // a page that nothing is on, or a page of text
		}
		found++
		if !(errors.Is(err, ErrCorrupt) || errors.Is(err, ErrForeign)) || backup.Hint(err) == "" {
			t.Errorf("page %d: %v, hint %q", page, err, backup.Hint(err))
		}
	}
	if found < samples/5 {
		t.Errorf("damage was found in %d pages only", found)
	}
}

// Where a catalog's file was moved and its newest transactions were left, these are not taken for a new one's, nor deleted.
func TestTransactionsLeftBehind(t *testing.T) {
	from := filepath.Join(t.TempDir(), "catalog.db")
	c, err := Open(t.Context(), from, Options{})
	must(t, err)
	defer c.Close()
	_, err = c.Resources.Put(t.Context(), "Job", "offsite", "kind: Job\n", 0)
	must(t, err)
	left, err := os.ReadFile(from + "-wal")
	must(t, err)
	if len(left) == 0 {
		t.Fatal("no transaction is outside the file")
	}
	for what, file := range map[string][]byte{"no file": nil, "an empty file": {}} {
		path := filepath.Join(t.TempDir(), "catalog.db")
		must(t, os.WriteFile(path+"-wal", left, 0o600))
		if file != nil {
			must(t, os.WriteFile(path, file, 0o600))
		}
		if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, ErrCorrupt) || !strings.Contains(backup.Hint(err), "-shm") {
			t.Errorf("%s: %v, hint %q", what, err, backup.Hint(err))
		}
		if kept, err := os.ReadFile(path + "-wal"); !bytes.Equal(kept, left) {
			t.Errorf("%s: the transactions were changed: %v", what, err)
		}
		must(t, os.WriteFile(path+"-wal", nil, 0o600)) // has none
		must(t, openAndCheck(t, path))
	}
}

func openAndCheck(t *testing.T, path string) error {
	c, err := Open(t.Context(), path, Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Resources.List(t.Context(), false, "Job"); err != nil {
		return err
	}
	return c.Check(t.Context())
}

// A full disk is an error that says so, undoes what was begun, and passes.
func TestFullDisk(t *testing.T) {
	c := place{location: filepath.Join(t.TempDir(), "catalog.db")}.open(t, newClock())
	var pages int64
	must(t, c.db.writer.QueryRow("PRAGMA page_count").Scan(&pages))
	limit := func(n int64) {
		_, err := c.db.writer.Exec("PRAGMA max_page_count = " + itoa(n))
		must(t, err)
	}
	limit(pages + 10)
	document := strings.Repeat("# fills the disk\n", 5000)
	written := 0
	var err error
	for ; err == nil && written < 100; written++ {
		_, err = c.Resources.Put(t.Context(), "Job", "job"+itoa(int64(written)), document, 0)
	}
	if !errors.Is(err, ErrFull) || backup.Hint(err) == "" {
		t.Fatalf("%v, hint %q", err, backup.Hint(err))
	}
	list, err := c.Resources.List(t.Context(), false, "Job")
	if must(t, err); len(list) != written-1 {
		t.Errorf("%d resources, %d were acknowledged", len(list), written-1)
	}
	limit(1 << 30)
	_, err = c.Resources.Put(t.Context(), "Job", "after", document, 0)
	must(t, err)
	must(t, c.Check(t.Context()))
}

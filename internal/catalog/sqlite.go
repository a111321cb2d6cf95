package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

const (
	// applicationID marks the file as a Ferry catalog: "Frry".
	applicationID = 0x46727279
	// busyTimeout is how long a statement waits for another process.
	busyTimeout = 10 * time.Second
	// readers is how many connections read at once.
	readers = 4

	sqliteTables = `SELECT COUNT(*), COALESCE(SUM(CASE WHEN name = $1 THEN 1 ELSE 0 END), 0) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`
)

// sqlitePragmas are set on each connection. FULL: what was acknowledged is there after a power cut, in WAL mode too.
var sqlitePragmas = []string{
	fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "trusted_schema(0)",
	fmt.Sprintf("journal_size_limit(%d)", 64<<20),
}

// openSQLite opens the file at path, or makes it. Its folder must be there.
func openSQLite(ctx context.Context, path string) (*database, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	unlock, err := lockFolder(ctx, filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	fresh, err := probeSQLite(ctx, path)
	if err != nil {
		return nil, err
	}
	d := &database{lockSection: func(context.Context, *sql.Tx, section) error { return nil }} // who writes has the whole database
	if d.writer, err = openPool(path, 1, sqlitePragmas, url.Values{"_txlock": {"immediate"}}); err != nil {
		return nil, err
	}
	if d.reader, err = openPool(path, readers, append(sqlitePragmas, "query_only(1)"), nil); err != nil {
		return nil, errors.Join(err, d.close())
	}
	if fresh {
		_, err = d.writer.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	}
	if err == nil {
		err = migrate(ctx, goose.DialectSQLite3, d.writer)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// createFile makes the file, empty: it holds the names of machines and what people configured, and is nobody else's to read.
func createFile(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// refuseLeftWAL returns an error if a file that is to become a catalog has the transactions of another one beside it, which has been
// moved without them: SQLite would delete them, and they may be the newest that there are.
func refuseLeftWAL(path string) error {
	info, err := os.Stat(path + "-wal")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Size() == 0:
		return nil
	}
	return hinted(fmt.Errorf("%w: %s-wal is there, and the file that it belongs to is not", ErrCorrupt, path),
		"move it to where that file went, and the one that ends in -shm too; or bring that file back")
}

// probeSQLite refuses a file that is not a catalog, before anything is written to it. A file that is empty is to become one, and
// so is one that is not there: it is made.
func probeSQLite(ctx context.Context, path string) (fresh bool, err error) {
	info, err := os.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return false, err
	}
	if missing || info.Size() == 0 {
		if err := refuseLeftWAL(path); err != nil {
			return false, err
		}
	}
	if missing {
		return true, createFile(path)
	}
	if !info.Mode().IsRegular() {
		return false, hinted(fmt.Errorf("%w: %s is not a file", ErrForeign, path), hintForeign)
	}
	db, err := openPool(path, 1, []string{"query_only(1)", sqlitePragmas[0]}, nil)
	if err != nil {
		return false, err
	}
	defer db.Close()
	var id int64
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	latest, err := latestSchema(goose.DialectSQLite3, db)
	if err != nil {
		return false, err
	}
	state, err := readSchema(ctx, db, sqliteTables)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	if id != applicationID && (id != 0 || state.tables > 0) {
		return false, hinted(fmt.Errorf("%w: %s is a database of another program", ErrForeign, path), hintForeign)
	}
	return id == 0, state.check(latest)
}

// openPool opens connections to the file at path.
func openPool(path string, connections int, pragmas []string, query url.Values) (*sql.DB, error) {
	values := url.Values{"_pragma": pragmas}
	for key, value := range query {
		values[key] = value
	}
	name := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: values.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// lockFolder sees to it that one process at a time makes a catalog or changes its schema. It locks the folder and not the
// file: closing a file that SQLite has open as well would end SQLite's own locks.
func lockFolder(ctx context.Context, path string) (unlock func(), err error) {
	folder, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { folder.Close() }, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			folder.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			folder.Close()
			return nil, ctx.Err()
		case <-ticker.C:
		}
	}
}

func (d *database) close() error {
	var err error
	if d.reader != nil && d.reader != d.writer {
		err = d.reader.Close()
	}
	return errors.Join(err, d.writer.Close())
}

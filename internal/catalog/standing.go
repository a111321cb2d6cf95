package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
)

// Standing are the sessions by which it is known how a job stands. Those that have not ended, or were not run, are not among them.
type Standing struct {
	// Ran is the newest that ran, Looked the newest of those that looked at the job's sources, Listed of those that could read one at least, and
	// AtTarget of those that could read the target as they ended. Nil: there is none.
	Ran, Looked, Listed, AtTarget *Session
	// Told are the newest that say how machines fare, newest first: not those whose time ended, or that were stopped, before they had copied
	// anything, as with a closed window.
	Told []Session
}

// What the columns sources and outcome of a session say; that of the target is 1 or 0.
const (
	sourcesUnread, sourcesRead = 1, 2
	outcomeEarly, outcomeTold  = 1, 2
)

// standsBy is what a session says that ends so: of the sources that it looked at, of the target, and of how machines fare.
func standsBy(state SessionState, counts Counts) (sources, target, outcome int) {
	switch {
	case counts["sourcesRead"] > 0:
		sources = sourcesRead
	case counts["sources"] > 0:
		sources = sourcesUnread
	}
	target = int(flag(counts["targetRead"] > 0))
	early := state == SessionExpired || state == SessionStopped
	if early && counts["copied"]+counts["claimed"] == 0 {
		return sources, target, outcomeEarly
	}
	return sources, target, outcomeTold
}

// newestBy enters an index for each kind of session: hours, and days, may lie between them in which a job had many others.
const newestBy = `
	SELECT * FROM (SELECT ` + sessionColumns + `, 'unread' AS kind FROM sessions WHERE job = $1 AND sources = 1 ORDER BY id DESC LIMIT 1) AS unread
	UNION ALL SELECT * FROM (SELECT ` + sessionColumns + `, 'read' FROM sessions WHERE job = $1 AND sources = 2 ORDER BY id DESC LIMIT 1) AS listed
	UNION ALL SELECT * FROM (SELECT ` + sessionColumns + `, 'at target' FROM sessions WHERE job = $1 AND target = 1 ORDER BY id DESC LIMIT 1) AS there
	UNION ALL SELECT * FROM (SELECT ` + sessionColumns + `, 'early' FROM sessions WHERE job = $1 AND outcome = 1 ORDER BY id DESC LIMIT 1) AS early
	UNION ALL SELECT * FROM (SELECT ` + sessionColumns + `, 'told' FROM sessions WHERE job = $1 AND outcome = 2 ORDER BY id DESC LIMIT $2) AS told`

// Standing returns the sessions by which it is known how a job stands, at most limit of those that say how machines fare.
func (s *Sessions) Standing(ctx context.Context, job string, limit int) (standing Standing, err error) {
	newest := map[string]*Session{}
	err = s.db.read(ctx, "reading how job "+job+" stands", func(rows *sql.Rows) error {
		var kind string
		session, err := scanSession(rows, &kind)
		if err == nil && kind == "told" {
			standing.Told = append(standing.Told, session)
		}
		newest[kind] = newerOf(newest[kind], &session)
		return err
	}, newestBy, job, limit)
	slices.SortFunc(standing.Told, func(a, b Session) int { return cmp.Compare(b.ID, a.ID) })
	standing.Listed, standing.AtTarget = newest["read"], newest["at target"]
	standing.Looked, standing.Ran = newerOf(newest["unread"], standing.Listed), newerOf(newest["early"], newest["told"])
	return standing, err
}

// newerOf is the newer of two sessions, of which there may be none.
func newerOf(a, b *Session) *Session {
	if a == nil || b != nil && b.ID > a.ID {
		return b
	}
	return a
}

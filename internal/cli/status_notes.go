package cli

import (
	"fmt"
	"strings"
	"time"

	"ferry/internal/api"
	"ferry/internal/restore"
)

// notes lists what else is to be known of machines, such as that their copies are always one interval behind.
func (s *screen) notes() {
	var rows [][]string
	for _, c := range s.status.Machines {
		note := c.Note
		switch {
		case !c.Retired.IsZero():
			note = retiredText(c, s.status.At) + "; " + note
		case !c.Missing.IsZero() && !c.TooOld: // those that are too old are listed with it
			note = "in no source since " + minute(c.Missing) + "; its copies stay; " + note
		}
		if note = strings.TrimSuffix(note, "; "); note != "" {
			rows = append(rows, []string{short(machineName(c.Machine)), short(c.Job), readable(note)})
		}
	}
	for _, r := range s.status.Repositories {
		for _, o := range r.Orphaned {
			rows = append(rows, []string{short(r.Name), short(o.Job), readable(orphanedText(r, o))})
		}
	}
	s.section([]string{"NOTES", "job", ""}, rows)
}

// orphanedText says of a job that was deleted by what its points are kept, and how to take them up again or give them up.
func orphanedText(r api.Repository, o api.Orphaned) string {
	by := "everything is kept"
	if o.Retention != "" {
		by = "its last retention is " + o.Retention
	}
	return fmt.Sprintf("the job was deleted %s and keeps %s here: %s; ferry repo jobs %s %s | ferry apply --keep-existing -f - takes them up again, and ferry delete job %[5]s --release then gives them up",
		minute(o.Deleted), counted(int(o.Points), "point"), by, restore.Quote(r.Location), restore.Quote(o.Job))
}

// retiredText says of a machine that has gone for good what becomes of its copies.
func retiredText(c api.Copy, at time.Time) string {
	text := "retired " + minute(c.Retired)
	switch {
	case !c.Purge.IsZero() && c.Purge.Before(at): // what is waited for is known only when the repositories are looked at
		text += "; its points are due for removal since " + minute(c.Purge) + ": ferry job explain says what they wait for"
	case !c.Purge.IsZero():
		text += "; its points are removed " + minute(c.Purge)
	case c.Missing.IsZero():
		text += ", and still in a source"
	}
	return text
}

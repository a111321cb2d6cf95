package commitlog

import (
	"fmt"
	"reflect"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
)

// keylessMay are the members of a payload that need no key.
var keylessMay = map[string]bool{
	"Time": true, "Writer": true, "Program": true, "Keyless": true,
	"ClaimsWithdrawn": true, "PointsRemoved": true, "PartialsEnded": true,
	"Condemned": true, "CondemnedFiles": true, "Deleted": true, "DeletedFiles": true, "IndexRemoved": true, "Bad": true, "Damaged": true,
}

// CheckKeyless returns an error wrapping format.ErrForged unless an entry that nobody with the key wrote says only what
// such a writer may say in this state (docs/format.md section 10.6): it gives up, and adds nothing that others rely on.
func (s *State) CheckKeyless(p *Payload) error {
	value := reflect.ValueOf(*p)
	for i := range value.NumField() {
		name, field := value.Type().Field(i).Name, value.Field(i)
		if keylessMay[name] || field.IsZero() || field.Kind() == reflect.Slice && field.Len() == 0 {
			continue
		}
		return fmt.Errorf("%w: it has no MAC, and says what only a holder of the key may: %s", format.ErrForged, name)
	}
	for _, id := range p.Deleted {
		if s.Packs.Has(id) && !s.Condemned[id] {
			return fmt.Errorf("%w: it has no MAC, and deletes pack %s, which was not condemned before", format.ErrForged, id)
		}
	}
	for _, file := range p.DeletedFiles {
		if !s.CondemnedFiles[file] {
			return fmt.Errorf("%w: it has no MAC, and deletes %s, which was not condemned before", format.ErrForged, file)
		}
	}
	type key struct {
		point backup.PointID
		job   string
	}
	withdrawn := map[key]bool{}
	for _, claim := range p.ClaimsWithdrawn {
		withdrawn[key{claim.Point, claim.Job}] = true
	}
	for _, id := range p.PointsRemoved {
		for _, claim := range s.Claims.Of(id) {
			if !withdrawn[key{id, claim.Job}] {
				return fmt.Errorf("%w: it has no MAC, and removes point %s, which %s claims", format.ErrForged, id.Short(), claim.Job)
			}
		}
		for _, hold := range s.Holds[id] {
			if hold.Until == nil || p.Time.Before(*hold.Until) {
				return fmt.Errorf("%w: it has no MAC, and removes point %s, which %s holds", format.ErrForged, id.Short(), hold.ID)
			}
		}
	}
	return nil
}

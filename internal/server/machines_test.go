package server

import (
	"net/http"
	"testing"

	"ferry/internal/api"
	"ferry/internal/backup"
)

// A person says by id, name or native id that a machine has gone for good, and takes it back.
func TestRetireMachine(t *testing.T) {
	f := newFixture(t)
	named := func(native, uuid, name string) backup.Machine {
		return backup.Machine{Key: backup.NewMachineKey(backup.PlatformProxmox, native, uuid, ""), Name: name}
	}
	web, db, other := named("100", "00000000-0000-4000-8000-000000000001", "web"), named("101", "00000000-0000-4000-8000-000000000002", "db"), named("102", "00000000-0000-4000-8000-000000000003", "db")
	must(t, f.Catalog.Machines.Saw(t.Context(), "pve", []backup.Machine{web, db, other}))
	for _, c := range []struct {
		machine string
		back    bool
		status  int
		code    string
	}{
		{"web", false, http.StatusOK, ""},
		{web.Key.String(), false, http.StatusOK, ""},
		{"db", false, http.StatusUnprocessableEntity, api.CodeInvalid},
		{"mail", false, http.StatusNotFound, api.CodeNotFound},
		{"100", true, http.StatusOK, ""},
		{"101", true, http.StatusOK, ""},
	} {
		a := f.expect(c.status, http.MethodPost, api.PathRetire, asJSON(api.Retire{Machine: c.machine, Back: c.back}))
		if a.problem.Code != c.code {
			t.Errorf("%s: %s", c.machine, a.body)
		}
		if a.status != http.StatusOK {
			continue
		}
		var held api.Retired
		if f.read(a, &held); held.Since.IsZero() != c.back {
			t.Errorf("%s: %s", c.machine, a.body)
		}
		known, err := f.Catalog.Machines.Get(t.Context(), web.Key)
		if must(t, err); c.machine != "101" && !known.Retired.Since.Equal(held.Since) {
			t.Errorf("%s: the catalog has %+v", c.machine, known)
		}
	}
}

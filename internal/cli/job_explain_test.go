package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
)

// What a source calls its machines may be meant for the terminal of the one who looks at the JSON.
func TestExplanationInJSONIsSafeToPrint(t *testing.T) {
	hostile := []string{"web\x1b[2J"}
	e := &job.Explanation{Plan: plan.IntervalPlan{
		Frozen: hostile[0], Alarms: hostile,
		Machines: []plan.MachinePlan{{
			Reason: hostile[0], Behind: hostile[0], Alarms: hostile, Warnings: hostile,
			Steps: []plan.IntervalStep{{Point: &backup.Brief{}, Source: -1, Reasons: hostile, Stays: hostile[0]}},
		}},
	}}
	written, err := json.Marshal(describeExplanation(policy.Job{}, e))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(written), `\u001b`) || strings.Count(string(written), "[2J") != 8 {
		t.Errorf("%s", written)
	}
}

func TestExplanationSaysWhoIsBehind(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	a.printExplanation(explanationJSON{Machines: []explainedJSON{{Behind: "later helps"}, {}}})
	if strings.Count(out.String(), "\n  always one interval behind: later helps\n") != 1 || strings.Count(out.String(), "behind") != 1 {
		t.Errorf("%s", out.String())
	}
}

// A point that is removed while the storage locks it says until when its space stays; one that stays does not.
func TestExplanationSaysUntilWhenSpaceIsLocked(t *testing.T) {
	e := &job.Explanation{Locked: time.Date(2027, 1, 2, 3, 4, 0, 0, time.UTC)}
	point := &backup.Brief{}
	for stays, want := range map[string]string{
		"":                 "old; removed now; its space stays locked until " + when(e.Locked),
		"claimed by other": "old; it stays: claimed by other",
	} {
		step := plan.IntervalStep{Point: point, Source: -1, Action: plan.ActionRemove, Reasons: []string{"old"}, Stays: stays}
		if got := describeIntervalStep(e, step).text("UTC"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := describeIntervalStep(e, plan.IntervalStep{Point: point, Action: plan.ActionKeep, Source: -1}); got.LockedUntil != nil {
		t.Errorf("a point that is kept: %+v", got)
	}
}

package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

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

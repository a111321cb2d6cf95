package cli

import (
	"fmt"
	"strings"
	"time"

	"ferry/internal/api"
	"ferry/internal/status"
)

// Exit codes of status --check, as Nagios and those after it have them. They are no others' codes.
const (
	checkOK       = 0
	checkWarning  = 1
	checkCritical = 2
	checkUnknown  = 3
)

// checkLine is one line for a monitoring system, and the exit code: what is wrong, then figures behind a bar.
func checkLine(of api.Status) (line string, code int) {
	word, code := "OK", checkOK
	switch level(of) {
	case "critical":
		word, code = "CRITICAL", checkCritical
	case "warning":
		word, code = "WARNING", checkWarning
	}
	if code == checkOK && len(of.Jobs) == 0 { // a server that was meant to do nothing is rare, one that has lost its catalog is not well
		word, code = "WARNING", checkWarning
	}
	text := wellText(of)
	if level(of) != "" {
		text = strings.Join(troubles(of), "; ")
		if names := oldestNames(of); names != "" {
			text += " (" + names + ")"
		}
	}
	return fmt.Sprintf("FERRY %s - %s | %s", word, onelined(text), strings.Join(performance(of), " ")), code
}

// unknownLine is the line where nothing can be said.
func unknownLine(reason string) string { return "FERRY UNKNOWN - " + onelined(reason) }

// onelined is a text without what ends the text of a check.
func onelined(text string) string {
	return strings.NewReplacer("|", "/", "\n", " ").Replace(readable(text))
}

// oldestNames are the machines whose copies are too old, a few of them.
func oldestNames(status api.Status) string {
	const most = 5
	var names []string
	for _, c := range status.Machines {
		if !c.TooOld {
			break
		}
		old := "none"
		if c.Point != "" {
			old = lasted(status.At.Sub(c.Created))
		}
		names = append(names, machineName(c.Machine)+" "+old)
	}
	if left := len(names) - most; left > 0 {
		names = append(names[:most], fmt.Sprintf("%d more", left))
	}
	return strings.Join(names, ", ")
}

// performance are figures as Nagios' plugins print them: 'label'=value[unit];[warning];[critical];[least];[most].
func performance(of api.Status) []string {
	alarms := map[string]int{}
	for _, alarm := range of.Alarms {
		alarms[alarm.Level]++
	}
	oldest := "U"
	if c, ok := oldestCopy(of); ok {
		oldest = fmt.Sprintf("%ds", max(0, int64(of.At.Sub(c.Created)/time.Second)))
	}
	waiting := int64(0)
	for _, wait := range of.Waiting {
		waiting += wait.Tasks
	}
	data := []string{
		fmt.Sprintf("copies=%d;;;0", of.MachinesTotal),
		fmt.Sprintf("too_old=%d;;0;0;%d", of.TooOld, of.MachinesTotal),
		fmt.Sprintf("without_copy=%d;;;0;%d", of.WithoutCopy, of.MachinesTotal),
		"oldest_copy=" + oldest + ";;;0",
		fmt.Sprintf("critical=%d;;0;0", alarms["critical"]),
		fmt.Sprintf("warning=%d;0;;0", alarms["warning"]),
		fmt.Sprintf("running=%d;;;0", len(of.Running)),
		fmt.Sprintf("waiting=%d;;;0", waiting),
	}
	for _, r := range of.Repositories {
		if r.Points == api.Unknown {
			continue
		}
		data = append(data, fmt.Sprintf("'%s stored'=%s;;;0", r.Name, bytesOf(r.Stored)), fmt.Sprintf("'%s free'=%s;;;0", r.Name, bytesOf(r.Free)))
		full := "U"
		if !r.Full.IsZero() {
			full = fmt.Sprintf("%ds", max(0, int64(r.Full.Sub(of.At)/time.Second)))
		}
		data = append(data, fmt.Sprintf("'%s full_in'=%s;%d:;%d:;0", r.Name, full, int64(status.FullWarning.Seconds()), int64(status.FullCritical.Seconds())))
	}
	return data
}

func bytesOf(n int64) string {
	if n == api.Unknown {
		return "U"
	}
	return fmt.Sprintf("%dB", n)
}

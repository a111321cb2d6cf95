package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"ferry/internal/backup"
)

// Problem is one mistake in what a person wrote.
type Problem struct {
	// File, Line and Column say where, from 1; Line is 0 for a mistake of a file as a whole.
	File         string
	Line, Column int
	// Path is the setting: "schedule.at", "select.include[2]". May be empty.
	Path string
	// Text says what is wrong, Hint what would be right; Hint may be empty.
	Text, Hint string
}

// String is the problem in one line: "job.yaml:12:3: …; hint". What came from a file is safe to print.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(backup.EncodeName(p.File) + ":")
		if p.Line > 0 {
			fmt.Fprintf(&b, "%d:%d:", p.Line, p.Column)
		}
		b.WriteByte(' ')
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Text)
	if p.Hint != "" {
		b.WriteString("; " + p.Hint)
	}
	return backup.SafeText(b.String())
}

// Problems are all mistakes of what was read, in the order of files and lines. At least one.
type Problems []Problem

// Error has one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// sort puts problems in the order of files and their lines.
func (p Problems) sort(files []File) {
	order := map[string]int{}
	for i, file := range files {
		order[file.Name] = i
	}
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// nearest is the candidate that a mistyped word most likely means; empty if none is near. A third of the word may be wrong.
func nearest(word string, candidates []string) string {
	best, least := "", max(1, len([]rune(word))/3)+1
	for _, candidate := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(candidate)); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// longestWord bounds what distances are counted between: the work grows with the square.
const longestWord = 64

// distance is the number of letters to insert, remove, replace or exchange with their neighbour that make one word the
// other. Row by row: what it takes for each beginning of a and each beginning of b.
func distance(a, b string) int {
	from, to := []rune(a), []rune(b)
	if len(from) > longestWord || len(to) > longestWord {
		return max(len(from), len(to))
	}
	row := func(n int) []int { return make([]int, n) }
	before, last, this := row(len(to)+1), row(len(to)+1), row(len(to)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(from); i++ {
		this[0] = i
		for j := 1; j <= len(to); j++ {
			replaced := last[j-1]
			if from[i-1] != to[j-1] {
				replaced++
			}
			this[j] = min(replaced, last[j]+1, this[j-1]+1)
			if i > 1 && j > 1 && from[i-1] == to[j-2] && from[i-2] == to[j-1] {
				this[j] = min(this[j], before[j-2]+1)
			}
		}
		before, last, this = last, this, before
	}
	return last[len(to)]
}

// meant is a hint with the candidate that a word most likely means, or with all of them.
func meant(word string, candidates []string) string {
	if near := nearest(word, candidates); near != "" {
		return "did you mean " + near + "?"
	}
	const most = 12
	switch {
	case len(candidates) == 0:
		return ""
	case len(candidates) > most:
		return "there are " + strings.Join(candidates[:most], ", ") + " and others"
	case len(candidates) == 1:
		return "there is " + candidates[0]
	}
	return "there are " + strings.Join(candidates, ", ")
}

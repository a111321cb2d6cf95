#!/usr/bin/env bash
# Runs make targets one after another, all of them even when one fails, and ends with a table of what passed.
# usage: phases.sh TARGET...
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

passed=0 failed=0 table=
for phase in "$@"; do
	echo
	echo "=== $phase"
	begin=$SECONDS
	if make --no-print-directory "$phase"; then
		result=passed
		passed=$((passed + 1))
	else
		result=FAILED
		failed=$((failed + 1))
	fi
	table+=$(printf '  %-18s %s  %4d s' "$phase" "$result" $((SECONDS - begin)))$'\n'
done

echo
echo "=== summary, $((SECONDS / 60)) min $((SECONDS % 60)) s"
printf '%s' "$table"
echo "phases: $passed passed, $failed failed"
[ "$failed" -eq 0 ]

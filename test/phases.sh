#!/usr/bin/env bash
# Runs make targets one after another, all of them even when one fails, and ends with a table of what passed, and the names
# and first lines of what failed.
# usage: phases.sh TARGET...
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
output=$(mktemp)
trap 'rm -f "$output"' EXIT

passed=0 failed=0 table= failures=
for phase in "$@"; do
	echo
	echo "=== $phase"
	begin=$SECONDS
	if make --no-print-directory "$phase" 2>&1 | tee "$output"; then
		result=passed
		passed=$((passed + 1))
	else
		result=FAILED
		failed=$((failed + 1))
		failures+=$(printf '\n=== what failed in %s\n' "$phase"; test/failures.sh "$output"; echo .)
		failures=${failures%.}
	fi
	table+=$(printf '  %-18s %s  %4d s' "$phase" "$result" $((SECONDS - begin)))$'\n'
done

printf '%s' "$failures"
echo
echo "=== summary, $((SECONDS / 60)) min $((SECONDS % 60)) s"
printf '%s' "$table"
echo "phases: $passed passed, $failed failed"
[ "$failed" -eq 0 ]

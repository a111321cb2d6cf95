#!/usr/bin/env bash
# Runs every fuzz target of the module: its corpus first, then new input for some seconds.
# usage: fuzz.sh SECONDS [PATTERN]     PATTERN: only targets whose name matches this regular expression
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:?usage: fuzz.sh SECONDS [PATTERN]}
pattern=${2:-.}
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
output=$built/output
module=$(go list -m) inputs=$(go env GOCACHE)/fuzz # where go test keeps what it finds

# fuzz does what go test does with -fuzz, but builds a package once and not again for each of its targets.
fuzz() { # PACKAGE TARGET
	local name=${1#./}
	local program=$built/${name//\//-}.test
	if [ ! -e "$program" ]; then
		go test -c -fuzz=. -o "$program" "$1" >"$output" 2>&1 || return
	fi
	(cd "$1" && "$program" -test.paniconexit0 -test.run='^$' -test.fuzz="^$2\$" -test.fuzzcachedir="$inputs/$module/$name" \
		-test.fuzztime="${seconds}s" -test.fuzzminimizetime=1x -test.parallel=2 -test.timeout=0) >"$output" 2>&1
}

# When the time is up while an input runs, go test may report a failure that is none: it names no input. Asked again, it
# says whether there is one.
only_out_of_time() {
	grep -q 'context deadline exceeded' "$output" && ! grep -q 'Failing input written' "$output"
}

# why prints what a failed target said, without the lines of its progress, and the input that it failed with.
why() { # PACKAGE
	grep -v '^fuzz: elapsed' "$output" | head -n 40 | cut -c 1-300 | sed 's/^/  /'
	sed -n 's/^.*Failing input written to \(.*\)$/\1/p' "$output" | while read -r input; do
		echo "  $1/$input:"
		head -c 4000 "$1/$input" | sed 's/^/    /'
		echo
	done
}

passed=0
failures=()
reasons=
while IFS=: read -r file name; do
	package=./$(dirname "$file")
	status=0
	fuzz "$package" "$name" || status=$?
	if [ "$status" -ne 0 ] && only_out_of_time; then
		status=0
		fuzz "$package" "$name" || status=$?
	fi
	if [ "$status" -eq 0 ]; then
		passed=$((passed + 1))
		echo "ok    $package $name: $({ grep '^fuzz: elapsed' "$output" || echo 'no line'; } | tail -n 1 | sed 's/^fuzz: //')"
	else
		failures+=("$package $name")
		cat "$output"
		echo "FAIL  $package $name"
		reasons+=$(printf 'FAIL  %s %s\n' "$package" "$name"; why "$package"; echo .)
		reasons=${reasons%.}
	fi
done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' cmd internal test 2>/dev/null |
	sed 's/:func /:/' | grep -E ":.*($pattern)" | LC_ALL=C sort)

if [ $((passed + ${#failures[@]})) -eq 0 ]; then
	echo "no fuzz target found"
	exit 1
fi
printf '%s' "$reasons"
echo "fuzz targets: $passed passed, ${#failures[@]} failed"
[ "${#failures[@]}" -eq 0 ]

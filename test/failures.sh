#!/usr/bin/env bash
# Prints what failed in the output of tests: names, and the first lines of each. Where only the end of a long output is shown,
# this is what it takes to begin looking. If nothing is recognised, the output's last lines.
# usage: failures.sh OUTPUT
set -euo pipefail
most=150 # lines

recognised=$(awk '
	# After a line that names a failure, so many lines that say why.
	function begin(lines) { left = lines; print substr($0, 1, 300) }
	/^[ \t]*--- FAIL: /                 { begin(3); next }
	/^WARNING: DATA RACE/               { if (++races <= 3) begin(8); else left = 0; next }
	/^(panic|fatal error): /            { begin(20); next }
	/^(FAIL|ERROR): /                   { begin(10); next }  # Python
	/^FAIL  /                           { fuzz = 1; begin(0); next } # fuzz.sh, which says it all behind it, indented
	fuzz && /^  /                       { print substr($0, 1, 1000); next }
	                                    { fuzz = 0 }
	/^FAIL\t/                           { begin(0); next }
	/^[^ \t:]+\.(go|py|sh):[0-9]+:/     { begin(0); next }   # the compiler, vet
	/^(ok|PASS|FAIL|=+)([ \t]|$)/       { left = 0; next }
	/\[rapid\] draw /                   { next }             # hundreds of them
	left > 0                            { left--; print substr($0, 1, 300) }
' "$1")
if [ -z "$recognised" ]; then
	tail -n 20 "$1" | cut -c 1-300
	exit
fi
printf '%s\n' "$recognised" | head -n "$most"
lines=$(printf '%s\n' "$recognised" | wc -l)
if [ "$lines" -gt "$most" ]; then
	echo "... and $((lines - most)) lines more"
fi

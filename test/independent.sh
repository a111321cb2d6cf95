#!/usr/bin/env bash
# Runs the tests of the independent reader. Python calls a run without any test a success; this does not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/independent"
export PYTHONDONTWRITEBYTECODE=1
output=$(mktemp)
trap 'rm -f "$output"' EXIT
python3 -W error::SyntaxWarning -m unittest discover 2>&1 | tee "$output"
grep -qE '^Ran [1-9][0-9]* test' "$output" || { echo "the independent reader has no tests"; exit 1; }

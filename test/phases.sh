#!/usr/bin/env bash
# Runs make targets one after another, all of them even when one fails, and ends with a table of what passed, and the names
# and first lines of what failed. Of targets that are joined by + the others run beside the first, and say afterwards what they
# have to say.
# usage: phases.sh TARGET[+TARGET]...
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
outputs=$(mktemp -d)
beside=() # the process groups of targets that run beside another
end() {
	for group in "${beside[@]}"; do kill -- "-$group" 2>/dev/null; done
	rm -rf "$outputs"
}
trap end EXIT

passed=0 failed=0 table= failures=
ended() { # TARGET STATUS SECONDS
	local result=FAILED
	if [ "$2" -eq 0 ]; then
		result=passed
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		failures+=$(printf '\n=== what failed in %s\n' "$1"; test/failures.sh "$outputs/$1"; echo .)
		failures=${failures%.}
	fi
	table+=$(printf '  %-18s %s  %4d s' "$1" "$result" "$3")$'\n'
}

for phase in "$@"; do
	IFS=+ read -ra targets <<<"$phase"
	beside=()
	for target in "${targets[@]:1}"; do
		# As a group of its own, which can be ended; a shell has such a one ignore interruptions, which is not what tests expect.
		setsid env --default-signal=INT bash -c 'make --no-print-directory "$1" >"$2" 2>&1; status=$?; echo "$SECONDS" >"$2.seconds"; exit "$status"' \
			beside "$target" "$outputs/$target" &
		beside+=($!)
	done
	echo
	echo "=== $phase"
	begin=$SECONDS
	make --no-print-directory "${targets[0]}" 2>&1 | tee "$outputs/${targets[0]}"
	ended "${targets[0]}" "${PIPESTATUS[0]}" $((SECONDS - begin))
	for i in "${!beside[@]}"; do
		target=${targets[i + 1]}
		wait "${beside[i]}"
		status=$?
		echo
		echo "=== $target, which ran beside ${targets[0]}"
		cat "$outputs/$target"
		ended "$target" "$status" "$(cat "$outputs/$target.seconds")"
	done
	beside=()
done

printf '%s' "$failures"
echo
echo "=== summary, $((SECONDS / 60)) min $((SECONDS % 60)) s"
printf '%s' "$table"
echo "phases: $passed passed, $failed failed"
[ "$failed" -eq 0 ]

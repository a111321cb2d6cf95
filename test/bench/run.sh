#!/usr/bin/env bash
# Compares Ferry side by side with zstd, cp and, where they are installed, restic and borg. Read README.md beside this.
#
# Parameters are environment variables:
#   IMAGE_GIB=8  CONTENT_GIB=5    the disk image and what its file system holds; or IMAGE_MIB, CONTENT_MIB
#   CHANGED_MIB=200               how much changes before the increment; 0: no increment
#   RUNS=3                        runs of each program; medians are printed
#   OTHERS="restic borg"          more programs to compare with; OTHERS= for none
#   BENCH_DIR                     where to work; default: ferry-bench in TMPDIR or /var/tmp. Removed afterwards, unless KEEP=1
#   FERRY=bin/ferry               the program to measure; FERRY=none measures the others only
#   RESULTS                       keep the single measurements in this file
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C

image_mib=${IMAGE_MIB:-$((${IMAGE_GIB:-8} * 1024))}
content_mib=${CONTENT_MIB:-$((${CONTENT_GIB:-5} * 1024))}
changed_mib=${CHANGED_MIB:-200}
runs=${RUNS:-3}
others=${OTHERS-restic borg}
work=${BENCH_DIR:-${TMPDIR:-/var/tmp}/ferry-bench}
ferry=${FERRY:-bin/ferry}

die() {
	echo "$*" >&2
	exit 1
}

for tool in go python3 zstd mkfs.ext4 cmp; do
	command -v "$tool" >/dev/null || die "the benchmark needs $tool"
done
[ "$ferry" = none ] || [ -x "$ferry" ] || die "there is no $ferry; make build, or FERRY=none"
((content_mib * 10 <= image_mib * 9)) || die "content of $content_mib MiB does not fit an image of $image_mib MiB"
mkdir -p "$work"
work=$(cd "$work" && pwd)
[ -z "$(ls -A "$work")" ] || [ -e "$work/.ferry-bench" ] || die "$work holds something else; remove it or choose another BENCH_DIR"
touch "$work/.ferry-bench"
free_mib=$(($(df --output=avail -k "$work" | tail -n 1) / 1024))
((free_mib >= content_mib * 4)) || die "$work has $free_mib MiB free; the benchmark needs $((content_mib * 4))"
clean() {
	local status=$?
	if [ "$status" -ne 0 ] && [ -s "$work/log" ]; then cat "$work/log" >&2; fi
	rm -rf "$work/content" "$work/out" "$work/restored" "$work/repositories" "$work/cache"
	[ "${KEEP:-}" = 1 ] || rm -rf "$work"
}
trap clean EXIT

export XDG_CACHE_HOME=$work/cache RESTIC_CACHE_DIR=$work/cache/restic RESTIC_PASSWORD=bench
export BORG_BASE_DIR=$work/cache/borg BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
results=${RESULTS:-$work/results.json}
image=$work/source/bench.raw
repositories=$work/repositories

# The image stays for another run with KEEP=1, if it was made the same way and is unchanged.
make_image() {
	local recipe="$image_mib $content_mib"
	[ "$(cat "$work/recipe" 2>/dev/null)" != "$recipe" ] || return 0
	echo "making an image of $image_mib MiB"
	rm -rf "$work/source" "$work/content" "$work/recipe"
	mkdir -p "$work/source"
	go run ./test/bench/content -out "$work/content" -mib "$content_mib" -system-mib "$content_mib"
	truncate -s "${image_mib}M" "$image"
	# The same folder gives the same image: fixed ids and times, no journal.
	E2FSPROGS_FAKE_TIME=1767225600 mkfs.ext4 -q -F -m 0 -O ^has_journal -U 0f0f0f0f-0000-4000-8000-00000000bead \
		-E hash_seed=0f0f0f0f-0000-4000-8000-00000000bead,lazy_itable_init=0,root_owner=0:0 -d "$work/content" "$image"
	rm -rf "$work/content"
	echo "$recipe" >"$work/recipe"
}

measure() { # GROUP PROGRAM OUTPUT COMMAND...
	python3 test/bench/measure.py run "$results" "$@"
}

new_repositories() {
	rm -rf "$repositories" "$work/cache" "$work/out" "$work/restored"
	mkdir -p "$repositories" "$work/cache" "$work/out" "$work/restored/ferry"
	if uses restic; then RESTIC_REPOSITORY=$repositories/restic restic init -q >/dev/null; fi
	if uses borg; then borg init -e none "$repositories/borg"; fi
}

uses() { [[ " $others " == *" $1 "* ]] && command -v "$1" >/dev/null; }

copy_with_others() { # GROUP ARCHIVE
	if uses restic; then measure "$1" restic "$repositories/restic" restic -q -r "$repositories/restic" backup "$work/source"; fi
	if uses borg; then measure "$1" borg "$repositories/borg" borg create -C zstd,1 "$repositories/borg::$2" "$work/source"; fi
}

ferry_copy() { # GROUP: leaves what Ferry said in $work/copy.json
	measure "$1" "ferry copy" "$repositories/ferry" \
		"$BASH" -c 'exec "$0" copy "$1" "$2" --create --json >"$3"' "$ferry" "$work/source" "$repositories/ferry" "$work/copy.json"
}

full='Full copy into a new repository'
restore='Restore to a sparse file'
nothing_new='Second copy, nothing new'
check='Check what is stored'
increment="Increment: $changed_mib MiB changed in clusters of 64 KiB"

round() {
	new_repositories
	cat "$image" >/dev/null
	measure "$full" 'zstd -1 -T0' "$work/out/bench.zst" zstd -q -1 -T0 "$image" -o "$work/out/bench.zst"
	if [ "$ferry" != none ]; then ferry_copy "$full"; fi
	copy_with_others "$full" full
	measure "$restore" 'cp --sparse=always' "$work/out/bench.raw" cp --sparse=always "$image" "$work/out/bench.raw"
	rm "$work/out/bench.raw"
	[ "$ferry" != none ] || return 0

	measure "$restore" 'ferry restore' "$work/restored/ferry" "$ferry" restore "$repositories/ferry" bench --to "$work/restored/ferry"
	cmp "$image" "$work/restored/ferry/"*.raw || die "the restored disk differs"
	rm -rf "$work/restored"
	measure "$check" 'zstd --test' "$work/out/bench.zst" zstd -q --test "$work/out/bench.zst"
	measure "$check" 'ferry verify' "$repositories/ferry" "$ferry" verify "$repositories/ferry"
	ferry_copy "$nothing_new"
	local read
	read=$(python3 test/bench/measure.py field "$work/copy.json" sourceBytesRead bytesRead)
	((read <= 4096)) || die "a copy with nothing new read $read bytes of the source, which is more than the image's header"
}

make_image
rm -f "$results"
for ((i = 1; i <= runs; i++)); do
	echo "round $i of $runs"
	round >"$work/log" 2>&1
done
if [ "$changed_mib" -gt 0 ]; then
	echo "increment"
	rm -f "$work/recipe" # the image is another one now
	python3 test/bench/measure.py scatter "$image" "$changed_mib"
	cat "$image" >/dev/null
	{
		if [ "$ferry" != none ]; then ferry_copy "$increment"; fi
		copy_with_others "$increment" increment
	} >"$work/log" 2>&1
fi

echo
echo "$(nproc) processors, image of $image_mib MiB holding $content_mib MiB, page cache warm, medians of $runs runs."
echo "Ratios are to the first program of a table; below 1 is less."
python3 test/bench/measure.py report "$results"

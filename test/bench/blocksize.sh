#!/usr/bin/env bash
# What the block size costs and saves: the same image, and the same image with CHANGED_MIB changed in clusters of 64 KiB as the next state of bench.py is,
# copied into one repository for each block size.
#   usage: blocksize.sh IMAGE     a raw image, which is copied first; needs about three times its size of free space
# Parameters are environment variables: SIZES="64KiB 128KiB …", CHANGED_MIB=200, BENCH_DIR (as for bench.py), FERRY=bin/ferry.
set -euo pipefail
image=$(realpath "${1:?usage: blocksize.sh IMAGE}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
sizes=${SIZES:-64KiB 128KiB 256KiB 512KiB 1MiB}
work=${BENCH_DIR:-${TMPDIR:-/var/tmp}/ferry-bench}-blocksize
ferry=${FERRY:-bin/ferry}
[ -x "$ferry" ] || { echo "there is no $ferry; make build" >&2; exit 1; }
rm -rf "$work"
mkdir -p "$work/source"
trap 'rm -rf "$work"' EXIT
cp --sparse=always "$image" "$work/source/bench.raw"
export XDG_CACHE_HOME=$work/cache

copy() { # BLOCK-SIZE: prints stored and metadata bytes
	"$ferry" copy "$work/source" "$work/$1" --create --block-size "$1" --codec zstd --json >"$work/copy.json"
	python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); print(r["storedBytes"], r["nodeBytes"])' "$work/copy.json"
}

declare -A full
for size in $sizes; do full[$size]=$(copy "$size"); done
go run ./test/bench/content -change "$work/source/bench.raw" -mib "${CHANGED_MIB:-200}" >/dev/null
printf '%-10s %12s %12s %14s\n' 'block size' 'full MiB' 'next MiB' 'next nodes KiB'
for size in $sizes; do
	read -r stored _ <<<"${full[$size]}"
	read -r next nodes <<<"$(copy "$size")"
	printf '%-10s %12d %12d %14d\n' "$size" $((stored >> 20)) $((next >> 20)) $((nodes >> 10))
done

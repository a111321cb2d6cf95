#!/usr/bin/env bash
# What reclaim's mark takes at a size: a repository of BLOCKS blocks of 128 KiB and thirty points of each of twenty machines is made up (index,
# trees, points and log as ferry writes them; packs of blocks are holes), opened, marked, and marked once more as from a distant storage
# whose requests are counted. Prints seconds, processor time and memory of each step, that of mapped files apart.
#   usage: mark.sh [BLOCKS]     50000000 unless given; needs 220 bytes of disk for each in BENCH_DIR (as for bench.py).
#   FERRY_SCALE_PACK_OF=16 GOGC=20 mark.sh 500000, and again with 64: what more packs of the same blocks take by themselves
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=${BENCH_DIR:-${TMPDIR:-/var/tmp}/ferry-bench}-mark
rm -rf "$work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
FERRY_SCALE_BLOCKS=${1:-50000000} FERRY_SCALE_DIR=$work go test -tags scale -count=1 -run 'TestScaleMark$' -timeout 2h -v ./internal/repo

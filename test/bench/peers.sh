#!/usr/bin/env bash
# Sees to it that the programs are there which bench.py compares Ferry with: Debian's packages where they can be installed, and a
# newer restic than Debian's from its Go module, below .tools/. What cannot be had is said, and left out of the comparison.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
restic_version=v0.18.1
export PATH=$PATH:/usr/sbin:/sbin

needed=(zstd zstd qemu-img qemu-utils mkfs.ext4 e2fsprogs borg borgbackup restic restic)
packages=()
for ((i = 0; i < ${#needed[@]}; i += 2)); do
	command -v "${needed[i]}" >/dev/null || packages+=("${needed[i + 1]}")
done
if ((${#packages[@]})); then
	if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
		echo "installing ${packages[*]}" >&2
		install=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q install -y --no-install-recommends "${packages[@]}")
		"${install[@]}" </dev/null >&2 || { apt-get -q update >&2 && "${install[@]}" </dev/null >&2; }
	else
		echo "not here, and so not compared with: ${packages[*]}" >&2
	fi
fi
if [ ! -x .tools/restic ]; then
	echo "building restic $restic_version, once (some minutes)" >&2
	GOBIN=$PWD/.tools "${GO:-go}" install "github.com/restic/restic/cmd/restic@$restic_version" >&2 ||
		echo "restic $restic_version could not be built; the installed one is compared with, if there is one" >&2
fi
exit 0

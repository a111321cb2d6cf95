#!/usr/bin/env bash
# Sees to it that the tools are there which tests compare Ferry against. As root on Debian it installs what is missing;
# anywhere else it says what is missing, and fails.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

# What is looked for (a command, or a file pattern), and the Debian package that has it.
needed=(
	gcc gcc
	qemu-img qemu-utils
	lzop lzop
	zstd zstd
	python3 python3
	curl curl
	mkfs.ext4 e2fsprogs
	mkfs.xfs xfsprogs
	losetup util-linux
	setpriv util-linux
	bindfs bindfs
	libvirtd libvirt-daemon-system
	virsh libvirt-clients
	'/usr/lib*/*/libvirt/connection-driver/libvirt_driver_qemu.so' libvirt-daemon-driver-qemu
	qemu-system-x86_64 qemu-system-x86
	virtnbdbackup virtnbdbackup
	'/usr/lib/postgresql/*/bin/initdb' postgresql
	promtool prometheus
)

missing() { # prints the packages of what is not there
	local i
	for ((i = 0; i < ${#needed[@]}; i += 2)); do
		if [[ ${needed[i]} == /* ]]; then
			compgen -G "${needed[i]}" >/dev/null || echo "${needed[i + 1]}"
		else
			command -v "${needed[i]}" >/dev/null || echo "${needed[i + 1]}"
		fi
	done
}

install() { # PACKAGE...
	DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q install -y --no-install-recommends "$@" </dev/null
}

mapfile -t packages < <(missing)
[ "${#packages[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "The tests need tools that are not here. Their Debian packages: ${packages[*]}" >&2
	echo "Install them, or run this as root on Debian. 'make test-unit' needs qemu-img and PostgreSQL of them." >&2
	exit 1
fi

echo "installing ${packages[*]}"
install "${packages[@]}" || {
	apt-get -q update
	install "${packages[@]}"
}

mapfile -t packages < <(missing)
if [ "${#packages[@]}" -gt 0 ]; then
	echo "still missing after installing: ${packages[*]}" >&2
	exit 1
fi

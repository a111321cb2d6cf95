#!/bin/bash
# A paused libvirt machine to make real virtnbdbackup data from: no systemd, no hardware virtualisation, no guest.
# Integration tests run it step by step:
#
#   machine.sh start DIR             starts a libvirtd of its own and the machine, with four disks in DIR/img
#   machine.sh write DIR STEP        changes the disks; every STEP (1, 2, 3, many) changes other ranges
#   machine.sh fill DIR N            changes 2 MiB of the first disk, at another place for every N, and 1 MiB of the second to byte N
#   machine.sh reference DIR NAME    writes the disks' present content to DIR/ref/<disk>.NAME.raw
#   machine.sh backup DIR OUT ARGS   runs virtnbdbackup with ARGS into DIR/OUT, in the place of this shell
#   machine.sh off DIR, on DIR       switches the machine off and on again
#   machine.sh stop DIR              ends the machine and the libvirtd, and takes back what start changed
#
# Debian: libvirt-daemon-system libvirt-clients libvirt-daemon-driver-qemu qemu-system-x86 qemu-utils virtnbdbackup.
# Must run as root.
set -euo pipefail
step=$1 dir=$2
shift 2
run=$dir/run img=$dir/img ref=$dir/ref
export LIBVIRT_DEFAULT_URI=qemu:///system
machine=ferry-test-vm
uuid=7c0f2a54-2f6e-4a0a-9a55-6d2f3f0f8b11
pidfile=$run/libvirtd.pid
qemuconf=/etc/libvirt/qemu.conf

monitor() { virsh -q qemu-monitor-command $machine --hmp "$1"; }

# Writes through the device's own block backend, so that the checkpoint's dirty bitmap sees it.
disk() { monitor "qemu-io -d /machine/peripheral/virtio-disk$1/virtio-backend \"$2\"" | grep -E 'rror|annot' && exit 1 || true; }

# Removes what a daemon that was killed, or a machine that could not be switched off in time, has left: another daemon would find
# the machine again with its old checkpoints, whose bitmaps the new images do not have. No daemon may run.
forget() {
	pkill -KILL -f "qemu-system-x86_64 -name guest=$machine," || true
	rm -rf "/etc/libvirt/qemu/$machine.xml" /run/libvirt/qemu/$machine.{xml,pid} "/var/lib/libvirt/qemu/checkpoint/$machine"
}

start() {
	forget
	mkdir -p "$run" "$img" "$ref" /run/libvirt
	chmod 755 "$dir" "$img"
	cat >"$run/libvirtd.conf" <<-C
		unix_sock_group = "root"
		unix_sock_rw_perms = "0700"
		auth_unix_rw = "none"
		log_level = 3
		log_outputs = "3:file:$run/libvirtd.log"
	C
	cp "$qemuconf" "$run/qemu.conf.before" # libvirtd has no switch for another one
	cat >>"$qemuconf" <<-C
		user = "root"
		group = "root"
		security_driver = "none"
		cgroup_controllers = [ ]
		namespaces = [ ]
		stdio_handler = "file"
		remember_owner = 0
	C
	libvirtd -d -f "$run/libvirtd.conf" -p "$pidfile"
	for _ in $(seq 600); do virsh version >/dev/null 2>&1 && break || sleep 0.1; done # a busy machine takes its time

	qemu-img create -q -f qcow2 "$img/vda.qcow2" 256M
	qemu-img create -q -f qcow2 "$img/base.qcow2" 32M
	qemu-io -c "write -P 0xba 1M 2M" "$img/base.qcow2" >/dev/null
	qemu-img create -q -f qcow2 -b "$img/base.qcow2" -F qcow2 "$img/vdb.qcow2"
	qemu-img create -q -f qcow2 "$img/vdc.qcow2" 64M # one extent of 40 MiB: several lz4 frames
	qemu-io -c "write -P 0x5a 4M 40M" "$img/vdc.qcow2" >/dev/null
	qemu-img create -q -f raw "$img/vdd.raw" 8M
	qemu-io -f raw -c "write -P 0x66 1M 512" "$img/vdd.raw" >/dev/null
	for d in vda vdb; do
		qemu-io -c "write -P 0x11 0 1M" -c "write -P 0x22 10M 64k" "$img/$d.qcow2" >/dev/null
	done
	head -c 5M /dev/urandom >"$run/random"
	qemu-io -c "write -s $run/random 16M 5M" "$img/vda.qcow2" >/dev/null
	head -c 256K /dev/zero >"$run/code.fd"
	head -c 128K /dev/urandom >"$run/vars.fd"

	local disks="" d
	for d in vda vdb vdc; do
		disks+="<disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>
			<source file='$img/$d.qcow2'/><target dev='$d' bus='virtio'/></disk>"
	done
	cat >"$run/machine.xml" <<-X
		<domain type='qemu'>
		  <name>$machine</name><uuid>$uuid</uuid>
		  <memory unit='MiB'>64</memory><vcpu>1</vcpu>
		  <os><type arch='x86_64' machine='pc'>hvm</type><loader readonly='yes' type='pflash'>$run/code.fd</loader>
		    <nvram>$run/vars.fd</nvram><boot dev='hd'/></os>
		  <features><acpi/></features>
		  <devices>
		    <emulator>/usr/bin/qemu-system-x86_64</emulator>
		    $disks
		    <disk type='file' device='disk'><driver name='qemu' type='raw'/>
		      <source file='$img/vdd.raw'/><target dev='vdd' bus='virtio'/></disk>
		    <controller type='usb' model='none'/><memballoon model='none'/>
		  </devices>
		</domain>
	X
	virsh -q define "$run/machine.xml"
	virsh -q start --paused $machine
}

change() {
	case $1 in
	1) disk 0 "write -P 0x33 2M 512k"; disk 0 "write -P 0x44 10M 64k"; disk 1 "write -P 0x55 1M 64k" ;;
	2) disk 0 "write -z 0 1M"; disk 0 "discard 16M 1M"; disk 0 "write -s $run/random 40M 3M"; disk 2 "write -P 0x88 6M 64k" ;;
	3) disk 0 "write -P 0x66 255M 1M" ;;
	many) disk 0 "write -P 0x77 64M 128M" ;;
	esac
	for d in 0 1 2; do disk $d flush; done
}

stop() {
	virsh -q destroy $machine >/dev/null 2>&1 || true
	virsh -q undefine $machine --nvram --checkpoints-metadata >/dev/null 2>&1 || true
	if [ -s "$pidfile" ]; then
		local pid
		pid=$(cat "$pidfile")
		kill "$pid" 2>/dev/null || true
		for _ in $(seq 600); do kill -0 "$pid" 2>/dev/null && [ "$(ps -o stat= -p "$pid" | cut -c1)" != Z ] && sleep 0.1 || break; done
		rm -f "$pidfile"
	fi
	forget
	if [ -f "$run/qemu.conf.before" ]; then
		cp "$run/qemu.conf.before" "$qemuconf"
		rm "$run/qemu.conf.before"
	fi
}

case $step in
start) start ;;
write) change "$1" ;;
fill)
	disk 0 "write -P $1 $((2 * $1))M 2M"
	disk 1 "write -P $1 4M 1M"
	for d in 0 1; do disk $d flush; done
	;;
reference)
	for d in vda vdb vdc; do qemu-img convert -q -U -O raw "$img/$d.qcow2" "$ref/$d.$1.raw"; done
	qemu-img convert -q -U -f raw -O raw "$img/vdd.raw" "$ref/vdd.$1.raw"
	;;
backup)
	out=$dir/$1
	shift
	exec virtnbdbackup -n -d $machine -S "$run" -o "$out" "$@"
	;;
off) virsh -q destroy $machine ;;
on) virsh -q start --paused $machine ;;
stop) stop ;;
*) echo "unknown step $step" >&2; exit 2 ;;
esac

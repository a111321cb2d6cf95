#!/usr/bin/env python3
"""Measures commands for run.sh and prints what came out. Python's standard library only.

measure.py run RESULTS GROUP PROGRAM OUTPUT COMMAND...   run, and append one line of JSON to the file RESULTS
measure.py report RESULTS                                medians, with ratios to the first program of each group
measure.py field FILE NAME...                            the first value of one of these names in FILE's JSON
measure.py scatter IMAGE MIB                             overwrite that much of an image, in clusters of 64 KiB
"""

import json
import os
import random
import statistics
import sys
import time

MEBIBYTE = 1 << 20
CLUSTER = 64 << 10


def allocated(path):
    """Bytes that a file, or everything below a folder, takes on the disk."""
    if not os.path.isdir(path):
        return os.lstat(path).st_blocks * 512
    return sum(os.lstat(os.path.join(folder, name)).st_blocks * 512
               for folder, _, names in os.walk(path) for name in names)


def run(results, group, program, output, *command):
    """Time a command until it ends, and until all that it wrote is on the disk."""
    os.sync()
    before = allocated(output) if os.path.exists(output) else 0
    begin = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    ended = time.monotonic()
    os.sync()
    synced = time.monotonic()
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        sys.exit(f"{program}: {' '.join(command)}: exit status {code}")
    record = {
        "group": group, "program": program, "seconds": ended - begin, "synced": synced - begin,
        "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss * 1024,
        "size": allocated(output) - before if os.path.exists(output) else 0,
    }
    with open(results, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def report(results):
    """Print a table for each group of programs that did the same work."""
    groups = {}
    with open(results, encoding="utf-8") as file:
        for record in map(json.loads, file):
            groups.setdefault(record["group"], {}).setdefault(record["program"], []).append(record)
    columns = ("program", "runs", "seconds", "ratio", "on disk s", "ratio", "CPU s", "peak MiB", "written MiB", "ratio")
    for group, programs in groups.items():
        print(f"\n{group}\n")
        print("| " + " | ".join(columns) + " |")
        print("|---" * len(columns) + "|")
        first = None
        for program, records in programs.items():
            median = {key: statistics.median(record[key] for record in records)
                      for key in ("seconds", "synced", "cpu", "memory", "size")}
            first = first or median

            def ratio(key):
                return f"{median[key] / first[key]:.2f}" if first[key] else "-"

            print(f"| {program} | {len(records)} | {median['seconds']:.2f} | {ratio('seconds')} | {median['synced']:.2f} "
                  f"| {ratio('synced')} | {median['cpu']:.2f} | {median['memory'] / MEBIBYTE:.0f} "
                  f"| {median['size'] / MEBIBYTE:.1f} | {ratio('size')} |")


def find(value, names):
    """The first member called one of names, anywhere in a JSON value."""
    if isinstance(value, dict):
        for name in names:
            if name in value:
                return value[name]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        found = find(child, names)
        if found is not None:
            return found
    return None


def field(path, *names):
    """Print a member of a file of JSON: one document, or one a line, of which the last that has it counts."""
    with open(path, encoding="utf-8") as file:
        content = file.read()
    try:
        documents = [json.loads(content)]
    except json.JSONDecodeError:
        documents = [json.loads(line) for line in content.splitlines() if line.strip()]
    for document in reversed(documents):
        found = find(document, names)
        if found is not None:
            print(found)
            return
    sys.exit(f"none of {', '.join(names)} in {path}")


def scatter(path, mebibytes):
    """Overwrite clusters that hold data, half of each with noise; the same ones for the same image."""
    chance = random.Random(11)
    with open(path, "r+b") as image:
        size = os.fstat(image.fileno()).st_size
        clusters, offset = [], 0
        while offset < size:
            try:
                start = os.lseek(image.fileno(), offset, os.SEEK_DATA)
            except OSError:
                break
            offset = os.lseek(image.fileno(), start, os.SEEK_HOLE)
            clusters.extend(range(-(-start // CLUSTER), offset // CLUSTER))
        wanted = int(mebibytes) * MEBIBYTE // CLUSTER
        if wanted > len(clusters):
            sys.exit(f"{path} holds only {len(clusters) * CLUSTER // MEBIBYTE} MiB of data")
        for cluster in chance.sample(clusters, wanted):
            os.pwrite(image.fileno(), chance.randbytes(CLUSTER // 2) + b"changed " * (CLUSTER // 16), cluster * CLUSTER)


def main():
    commands = {"run": run, "report": report, "field": field, "scatter": scatter}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()

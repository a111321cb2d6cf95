#!/usr/bin/env python3
"""Compares Ferry side by side with zstd, cp, restic and borg, and prints what it must reach and what it did. See README.md.

Parameters are environment variables:
  IMAGE_GIB=8  CONTENT_GIB=5    the disk image and what its file system holds; or IMAGE_MIB, CONTENT_MIB
  CHANGED_MIB=200               how much of it, in clusters of 64 KiB, the next state changes
  RUNS=5                        runs of each program; medians are printed
  ROWS="full-auto restore"      only these rows of the table; bench.py rows lists them
  OTHERS="restic borg"          what to compare with besides zstd and cp; OTHERS= for none
  POINTS=30  MANY_POINTS=10000  points in the repository that one is dropped from; points that a copy of nothing new meets
  ENCRYPT=0                     repositories without encryption
  SCALE_BLOCKS=50000000         blocks of the repository of the row scale: 220 bytes of disk for each
  PROFILE=1                     profiles of the processor's time, in another round that does not count
  BENCH_DIR                     where to work; default: ferry-bench in TMPDIR or /var/tmp. Removed afterwards, unless KEEP=1
  FERRY=bin/ferry  RESTIC=…     the programs; restic by default the one that peers.sh built, else the installed one
  RESULTS=FOLDER                keep profiles and the report here; default test/bench/results
"""

import os
import shutil
import sys
import time

import measure
import rows
from measure import say


class Config:
    """The parameters."""

    def __init__(self, env):
        def number(name, default):
            return int(env.get(name) or default)

        self.image_mib = number("IMAGE_MIB", number("IMAGE_GIB", 8) * 1024)
        self.content_mib = number("CONTENT_MIB", number("CONTENT_GIB", 5) * 1024)
        self.changed_mib = number("CHANGED_MIB", 200)
        self.runs = number("RUNS", 5)
        self.points = number("POINTS", 30)
        self.many_points = number("MANY_POINTS", 10000)
        self.scale_blocks = number("SCALE_BLOCKS", 50_000_000)
        self.rows = (env.get("ROWS") or " ".join(rows.NAMES)).split()
        self.others = env.get("OTHERS", "restic borg").split()
        self.encrypt = env.get("ENCRYPT") != "0"
        self.profile = env.get("PROFILE") == "1"
        self.keep = env.get("KEEP") == "1"
        self.work = os.path.abspath(env.get("BENCH_DIR") or os.path.join(env.get("TMPDIR") or "/var/tmp", "ferry-bench"))
        self.results = os.path.abspath(env.get("RESULTS") or "test/bench/results")
        self.ferry = env.get("FERRY") or "bin/ferry"
        self.restic = env.get("RESTIC") or (os.path.abspath(".tools/restic") if os.path.exists(".tools/restic") else "restic")

    def check(self):
        unknown = [row for row in self.rows if row not in rows.NAMES]
        if unknown:
            sys.exit(f"no row is called {' or '.join(unknown)}; there are: {' '.join(rows.NAMES)}")
        if self.content_mib * 10 > self.image_mib * 9:
            sys.exit(f"content of {self.content_mib} MiB does not fit an image of {self.image_mib} MiB")
        for tool in ("go", "zstd", "mkfs.ext4", "qemu-img", "cmp", "cp"):
            if not shutil.which(tool):
                sys.exit(f"the benchmark needs {tool}; test/bench/peers.sh installs what is missing")
        if not os.access(self.ferry, os.X_OK):
            sys.exit(f"there is no {self.ferry}; make build")
        self.others = [other for other in self.others if shutil.which(self.restic if other == "restic" else other)]

    def take_folder(self):
        """Make the folder to work in, unless it holds something else."""
        os.makedirs(self.work, exist_ok=True)
        mark = os.path.join(self.work, ".ferry-bench")
        if os.listdir(self.work) and not os.path.exists(mark):
            sys.exit(f"{self.work} holds something else; remove it or choose another BENCH_DIR")
        with open(mark, "w", encoding="utf-8"):
            pass
        needed = max(self.content_mib * 46 // 10 + 100, self.scale_blocks * 220 >> 20 if "scale" in self.rows else 0)
        free = shutil.disk_usage(self.work).free >> 20
        if free < needed:
            sys.exit(f"{self.work} has {free} MiB free; the benchmark needs {needed}")

    def clean(self):
        if not self.keep:
            shutil.rmtree(self.work)
            return
        for folder in ("repositories", "cache", "out", "restored", "chain", "increment", "states", "content"):
            shutil.rmtree(os.path.join(self.work, folder), ignore_errors=True)


def report(config, bench, failed):
    """The table, what the machine can do at best, and all measurements."""
    commit = bench.text("git", "describe", "--always", "--dirty")
    lines = [
        f"{time.strftime('%Y-%m-%d')}, Ferry {commit}, {os.cpu_count()} processors ({bench.processor()}), image of {config.image_mib} MiB holding "
        f"{config.content_mib} MiB, next state with {bench.data.changed / measure.MEBIBYTE:.0f} MiB of changed clusters of 64 KiB, page cache warm, "
        f"medians of {config.runs} runs. {'Encrypted' if config.encrypt else 'NOT encrypted'}. {bench.versions()} Row scale: {config.scale_blocks} blocks.",
        "", measure.HEAD,
    ]
    lines += filter(None, (bar.line(bench.results) for bar in bench.bars()))
    lines += [f"| {work} | FAILED | | | **no** | | |" for work in failed]
    lines += ["", bench.limits, "", bench.results.table()]
    return "\n".join(lines) + "\n"


def write(config, text):
    """Put the report where it is kept, whole."""
    os.makedirs(config.results, exist_ok=True)
    path = os.path.join(config.results, "report.md")
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".tmp", path)


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    os.environ["LC_ALL"] = "C"
    if sys.argv[1:] == ["rows"]:
        print("\n".join(rows.NAMES))
        return
    if sys.argv[1:]:
        sys.exit(__doc__)
    config = Config(os.environ)
    config.check()
    config.take_folder()
    try:
        bench = rows.Bench(config)
        failed = bench.run(lambda failed: write(config, report(config, bench, failed)))
        text = report(config, bench, failed)
        write(config, text)
    finally:
        config.clean()
    print(text)
    say(f"the report is in {config.results}")
    if failed:
        sys.exit(f"failed: {' '.join(failed)}")


if __name__ == "__main__":
    main()

"""A server over two repositories with many points of many machines, for bench.py: the second has all that the first has."""

import datetime
import os
import shutil
import signal
import subprocess
import sys
import time

import measure
from measure import Run

MACHINES, POINTS = 2000, 50

JOB = """kind: Repository
name: source
location: {source}
---
kind: Repository
name: vault
location: {vault}
---
kind: Job
name: bench
source: {{repositories: [source]}}
target: {{repository: vault}}
schedule: {{mode: manual}}
retention: {{days: 60, weekly: {{keep: 4}}, monthly: {{keep: 12}}}}
rpo: 30d
"""


class Machines:
    """Runs ferry serve as long as it is entered. Blocks are small and nothing is encrypted: neither is in what is measured."""

    def __init__(self, work, log, ferry, go):
        self.folder, self.log, self.ferry, self.go = f"{work}/machines", log, ferry, go
        self.server = None

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(f"{self.folder}/state")
        first = (datetime.date.today() - datetime.timedelta(days=POINTS)).isoformat()
        for name, job in (("source", "local"), ("vault", "bench")):
            self.run("repo", "init", f"{self.folder}/{name}", "--block-size", "4KiB")
            self.go("points", "-repository", f"{self.folder}/{name}", "-machines", str(MACHINES), "-count", str(MACHINES * POINTS), "-blocks", "2", "-job", job, "-first", first)
        with open(f"{self.folder}/job.yaml", "w", encoding="utf-8") as file:
            file.write(JOB.format(source=f"{self.folder}/source", vault=f"{self.folder}/vault"))
        with open(self.log, "ab") as log:
            command = self.command("serve", "--state", f"{self.folder}/state", "--socket", self.socket)
            self.server = subprocess.Popen(command, stdout=log, stderr=log)  # pylint: disable=consider-using-with
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.server.send_signal(signal.SIGTERM)
        self.server.wait()
        shutil.rmtree(self.folder)

    def begin(self):
        """Apply the job, and run its first session: afterwards the server's catalog has all points."""
        deadline = time.monotonic() + 60
        while not os.path.exists(self.socket):
            if self.server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"ferry serve does not answer; see {self.log}")
            time.sleep(0.05)
        self.run("apply", "-f", f"{self.folder}/job.yaml", "--socket", self.socket)
        self.run("job", "run", "bench", "--socket", self.socket)

    @property
    def socket(self):
        return f"{self.folder}/socket"

    def command(self, *arguments):
        return [self.ferry.binary, "--cache-dir", f"{self.folder}/cache", *arguments]

    def run(self, *arguments):
        return measure.run(self.command(*arguments), log=self.log, stdout=f"{self.folder}/out")

    def explain(self):
        """Looking at both repositories and planning, in a process of its own, as a session does first."""
        return self.run("job", "explain", "bench", "-f", f"{self.folder}/job.yaml")

    def session(self):
        """A session of the server that finds nothing to do; the memory is the most that the server has taken so far."""
        before = self.used()
        one = self.run("job", "run", "bench", "--socket", self.socket)
        return Run(one.seconds, one.synced, self.used() - before, self.peak())

    def status(self):
        before = self.used()
        one = self.run("status", "--socket", self.socket)
        return Run(one.seconds, one.synced, one.cpu + self.used() - before, one.memory)

    def idle(self, seconds):
        before = self.used()
        time.sleep(seconds)
        return Run(seconds, seconds, self.used() - before, self.peak())

    def used(self):
        """Seconds of processor that the server has used."""
        with open(f"/proc/{self.server.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak(self):
        with open(f"/proc/{self.server.pid}/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

"""Measures commands, and prints what came out. Used by bench.py; Python's standard library only."""

import dataclasses
import json
import os
import statistics
import sys
import time

MEBIBYTE = 1 << 20


def say(text):
    """Progress goes to standard error: standard output is the report."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def stored(path):
    """Bytes of all files below a folder, or of one file."""
    if not os.path.isdir(path):
        return os.path.getsize(path) if os.path.exists(path) else 0
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)


@dataclasses.dataclass
class Run:
    """One run of one command. Seconds until it ended, and until all it wrote was on the disk; bytes for the rest."""

    seconds: float
    synced: float
    cpu: float
    memory: int
    size: int = 0
    read: int | None = None


class Figure(Run):
    """A figure by itself, in place of a time."""

    def __init__(self, figure):
        super().__init__(0, 0, 0, 0)
        self.count = self.slope = figure


def run(command, output=None, env=None, log=None, stdout=None):
    """Time a command. Its output folder or file is measured before and after."""
    before = stored(output) if output else 0
    os.sync()
    actions = []
    for descriptor, path in ((1, stdout or log), (2, log)):
        if path:
            flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if path == stdout else os.O_APPEND)
            actions.append((os.POSIX_SPAWN_OPEN, descriptor, path, flags, 0o600))
    begin = time.monotonic()
    child = os.posix_spawnp(command[0], command, env or os.environ, file_actions=actions)
    _, status, usage = os.wait4(child, 0)
    ended = time.monotonic()
    os.sync()
    synced = time.monotonic()
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        tail = ""
        if log and os.path.exists(log):
            with open(log, encoding="utf-8", errors="replace") as file:
                tail = file.read()[-2000:]
        sys.exit(f"{' '.join(command)}: exit status {code}\n{tail}")
    return Run(
        seconds=ended - begin, synced=synced - begin, cpu=usage.ru_utime + usage.ru_stime, memory=usage.ru_maxrss * 1024,
        size=stored(output) - before if output else 0,
    )


def field(path, name):
    """A member of the JSON document in a file, however deep."""
    def find(value):
        if isinstance(value, dict):
            if name in value:
                return value[name]
            value = list(value.values())
        if isinstance(value, list):
            for child in value:
                found = find(child)
                if found is not None:
                    return found
        return None

    with open(path, encoding="utf-8") as file:
        found = find(json.load(file))
    if found is None:
        sys.exit(f"no {name} in {path}")
    return found


class Results:
    """Runs by work and program, in the order in which they came."""

    def __init__(self):
        self.runs = {}

    def add(self, work, program, one):
        self.runs.setdefault((work, program), []).append(one)

    def median(self, work, program, metric):
        """None if the program did not run, or has no such figure."""
        values = [getattr(one, metric) for one in self.runs.get((work, program), ())]
        return statistics.median(values) if values and None not in values else None

    def peak(self, keys):
        return max((one.memory for key in keys for one in self.runs[key]), default=None)

    def table(self):
        """All measurements, in Markdown."""
        lines = ["| work | program | runs | seconds | on disk | processor s | peak MiB | written MiB | read MiB |", "|---" * 9 + "|"]
        before = None
        for (work, program), runs in self.runs.items():
            def median(metric, unit=1, digits=1, work=work, program=program):
                value = self.median(work, program, metric)
                return "" if value is None else f"{value / unit:.{digits}f}"

            lines.append(
                f"| {work if work != before else ''} | {program} | {len(runs)} | {median('seconds', digits=2)} | {median('synced', digits=2)} "
                f"| {median('cpu', digits=2)} | {median('memory', MEBIBYTE, 0)} | {median('size', MEBIBYTE)} | {median('read', MEBIBYTE)} |")
            before = work
        return "\n".join(lines)


@dataclasses.dataclass
class Bar:
    """What a row of the table must reach: a program's figure, at most limit times another program's, or at most limit."""

    row: str
    text: str
    work: str
    program: str
    metric: str
    limit: float | None
    against: str | None = None
    # against_metric is the other program's figure where it is another one than Ferry's.
    against_metric: str | None = None
    # base replaces the other program's figure.
    base: float | None = None
    # base_text says what it is.
    base_text: str = "what changed"

    def line(self, results):
        """The row's line in Markdown; None if it was not measured."""
        value = results.median(self.work, self.program, self.metric)
        if value is None:
            return None
        other = self.base
        if self.against:
            other = results.median(self.work, self.against, self.against_metric or self.metric)
        if self.against and other is None:
            return f"| {self.row} | {self.text} | | | | {figure(value, self.metric)} | {self.against}: not here |"
        measured = value / other if other else value
        shown = f"{measured:.3f} ×" if other else figure(value, self.metric)
        reached = "" if self.limit is None else "yes" if measured <= self.limit else "**no**"
        bar = "" if self.limit is None else f"≤ {self.limit} ×" if other else f"≤ {figure(self.limit, self.metric)}"
        against = f"{self.against or self.base_text} {figure(other, self.against_metric or self.metric)}" if other else ""
        return f"| {self.row} | {self.text} | {bar} | {shown} | {reached} | {figure(value, self.metric)} | {against} |"


HEAD = "| row | work | bar | measured | reached | Ferry | against |\n" + "|---" * 7 + "|"


def figure(value, metric):
    """A figure as a person reads it."""
    if metric in ("seconds", "synced", "cpu"):
        return f"{value:.2f} s"
    if metric == "count":
        return f"{value:.0f}"
    if metric == "slope":
        return f"{value:.2f} bytes"
    return f"{value / MEBIBYTE:.1f} MiB"

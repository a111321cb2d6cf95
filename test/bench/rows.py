"""The rows of the table: what is run for each, by which programs, and what it must reach."""

import glob
import os
import platform
import shutil
import subprocess
import sys

import dataset
import machines
import programs
import scale
from measure import Bar, Figure, Results, Run, run, say

MEBIBYTE = 1 << 20
ZSTD, CP, RESTIC, BORG = "zstd -1 -T0", "cp --sparse=always", "restic", "borg"

# The works that are measured, and the rows of the table that each serves.
WORKS = {
    "full": ("full-auto", "full-zstd"),
    "next": ("next-overlay", "next-virtnbdbackup", "next-raw", "next-stored"),
    "nothing-new": ("nothing-new",),
    "verify": ("verify",),
    "restore": ("restore",),
    "replicate": ("replicate",),
    "drop": ("drop",),
    "machines": ("machines",),
    "scale": ("scale",),
}
# The works that do not need the image; nor is their memory that of the others.
OWN_DATA = ("machines", "scale")
NAMES = [row for served in WORKS.values() for row in served] + ["memory"]

BARS = [
    Bar("full-auto", "full copy, codec auto", "full", "ferry auto", "seconds", 0.65, ZSTD),
    Bar("full-auto", "… against restic", "full", "ferry auto", "seconds", 0.18, RESTIC),
    Bar("full-auto", "… stored bytes", "full", "ferry auto", "size", 1.35, ZSTD),
    Bar("full-zstd", "full copy, codec zstd", "full", "ferry zstd", "seconds", 1.3, ZSTD),
    Bar("full-zstd", "… stored bytes", "full", "ferry zstd", "size", 1.08, ZSTD),
    Bar("next-overlay", "next state, qcow2 overlay", "next", "ferry overlay", "seconds", 0.07, RESTIC),
    Bar("next-overlay", "… source bytes read", "next", "ferry overlay", "read", 1.1),
    Bar("next-virtnbdbackup", "next state, virtnbdbackup increment", "next", "ferry virtnbdbackup", "seconds", 0.07, RESTIC),
    Bar("next-virtnbdbackup", "… source bytes read", "next", "ferry virtnbdbackup", "read", 1.1),
    Bar("next-raw", "next state, raw", "next", "ferry raw", "seconds", 0.2, RESTIC),
    Bar("next-stored", "stored bytes of the next state", "next", "ferry raw", "size", 0.55, RESTIC),
    Bar("next-stored", "…", "next", "ferry raw", "size", 0.55, BORG),
    Bar("nothing-new", "nothing new, many points there", "nothing-new", "ferry", "seconds", 0.2),
    Bar("verify", "verify every block", "verify", "ferry", "seconds", 0.45, RESTIC),
    Bar("restore", "restore, sparse raw", "restore", "ferry", "seconds", 1.3, CP),
    Bar("replicate", "copy repository to repository, same keys", "replicate", "ferry", "seconds", 2, "cp -r, sync", "synced"),
    Bar("drop", "drop a point, reclaim: data packs read", "drop", "ferry packs read", "count", 0),
    Bar("drop", "… time", "drop", "ferry", "seconds", None, RESTIC),
    Bar("drop", "… time, in proportion to trees", "drop", "ferry", "seconds", 1.1, base_text="half the points, times as many bytes of trees:"),
    Bar("machines", "2,000 machines, 100,000 points: all listed, and an interval planned", "machines", "ferry explain", "seconds", 2),
    Bar("machines", "… a session with nothing to do", "machines", "ferry session", "seconds", None),
    Bar("machines", "… server's memory, with sessions", "machines", "ferry session", "memory", 300 * MEBIBYTE),
    Bar("machines", "… ferry status", "machines", "ferry status", "seconds", 0.3),
    Bar("machines", "… server idle for 60 s, processor", "machines", "ferry idle", "cpu", 0.6),
    Bar("scale", "many blocks × 30 points: open", "scale", "ferry open", "seconds", None),
    Bar("scale", "… ingest of 600 points, all blocks known", "scale", "ferry ingest", "seconds", None),
    Bar("scale", "… mark", "scale", "ferry mark", "seconds", None),
    Bar("scale", "… open cold, distant storage", "scale", "ferry open cold", "seconds", None),
    Bar("scale", "… … requests", "scale", "ferry open cold, requests", "count", None),
    Bar("scale", "… … read", "scale", "ferry open cold", "read", None),
    Bar("scale", "… mark cold", "scale", "ferry mark cold", "seconds", None),
    Bar("scale", "… … requests", "scale", "ferry mark cold, requests", "count", None),
    Bar("scale", "… open cold, S3 server", "scale", "ferry open S3", "seconds", None),
    Bar("scale", "… … requests", "scale", "ferry open S3, requests", "count", None),
    Bar("scale", "… … read", "scale", "ferry open S3", "read", None),
    Bar("scale", "… mark cold, S3 server", "scale", "ferry mark S3", "seconds", None),
    Bar("scale", "… … requests", "scale", "ferry mark S3, requests", "count", None),
    Bar("scale", "… peak memory, the most of any of these", "scale", "ferry peak", "memory", 1024 * MEBIBYTE),
    Bar("scale", "… memory for a further block: open", "scale", "ferry open, slope", "slope", 1),
    Bar("scale", "… … open cold", "scale", "ferry open cold, slope", "slope", 1),
    Bar("scale", "… … mark", "scale", "ferry mark, slope", "slope", 1),
    Bar("scale", "… … mark cold", "scale", "ferry mark cold, slope", "slope", 1),
]


class Bench:
    """All works that the rows asked for need."""

    def __init__(self, config):
        self.config, self.results = config, Results()
        self.log = f"{config.work}/log"
        self.limits = ""  # what the machine can do at best, once the image is no longer needed
        self.trees = None  # how many times the trees of half the points all points have
        for folder in ("repositories", "cache", "out", "restored", "states"):
            shutil.rmtree(f"{config.work}/{folder}", ignore_errors=True)
        os.makedirs(f"{config.work}/out")
        self.data = dataset.Dataset(config.work, config, self.log)
        self.ferry = programs.Ferry(config.work, self.log, config.ferry, config.encrypt)
        self.restic = programs.Restic(config.work, self.log, config.restic) if "restic" in config.others else None
        self.borg = programs.Borg(config.work, self.log) if "borg" in config.others else None

    @property
    def others(self):
        return [program for program in (self.restic, self.borg) if program]

    def wants(self, *asked):
        return any(row in self.config.rows for row in asked)

    @property
    def has_image(self):
        return any(self.wants(*served) for work, served in WORKS.items() if work not in OWN_DATA)

    def run(self, finished):
        """Run all works, and call finished after each. One that fails does not lose the others; returns those that did."""
        if self.has_image:
            self.data.make_base()
        failed = []
        for work, served in WORKS.items():
            if not self.wants(*served):
                continue
            try:
                if work in OWN_DATA:
                    self.leave_image()
                getattr(self, "do_" + work.replace("-", "_"))(work)
            except (SystemExit, Exception) as err:  # pylint: disable=broad-exception-caught
                say(f"{work} FAILED: {err}")
                failed.append(work)
                self.ferry.profile = None
            finished(failed)
        self.leave_image()
        return failed

    def leave_image(self):
        """Make room once the works that need the image are done: say what the machine can do with it, and remove it."""
        if not self.has_image or self.limits:
            return
        self.limits = self.data.go("limits", "-image", self.data.base, "-dir", self.config.work, "-mib", str(min(1024, self.config.content_mib))).strip()
        for program in filter(None, (self.ferry, self.restic)):
            program.drop("base")
        if not self.config.keep:
            self.data.drop_base()

    def rounds(self, work, program_runs, after_round=lambda: None):
        """Run all programs of a work in turn, again and again; a slow minute of the machine meets all of them."""
        for number in range(self.config.runs):
            say(f"{work}: round {number + 1} of {self.config.runs}")
            for program, once in program_runs.items():
                self.results.add(work, program, once())
            after_round()
        if not self.config.profile:
            return
        folder = f"{self.config.results}/profiles"
        os.makedirs(folder, exist_ok=True)
        for program, once in program_runs.items():
            if program.startswith("ferry"):
                self.ferry.profile = f"{folder}/{work}-{program.replace(' ', '-')}.prof"
                once()
                if not os.path.exists(self.ferry.profile):  # programs that a server runs with write none
                    continue
                text = self.text("go", "tool", "pprof", "-top", "-nodecount=25", self.config.ferry, self.ferry.profile)
                with open(self.ferry.profile.replace(".prof", ".txt"), "w", encoding="utf-8") as file:
                    file.write(text)
        self.ferry.profile = None

    # Full copies.

    def do_full(self, work):
        out = f"{self.config.work}/out/bench.zst"
        base = os.path.dirname(self.data.base)

        def zstd():
            dataset.warm(self.data.base)
            if os.path.exists(out):
                os.remove(out)
            return run(["zstd", "-q", "-1", "-T0", self.data.base, "-o", out], output=out, log=self.log)

        def copy(codec):
            def once():
                dataset.warm(self.data.base)
                self.ferry.fresh(codec)
                return self.ferry.copy(base, codec, "--codec", codec)
            return once

        def other(program, *arguments):
            def once():
                dataset.warm(self.data.base)
                program.fresh("full")
                return program.backup("full", base, *arguments)
            return once

        todo = {ZSTD: zstd}
        for codec in ("auto", "zstd"):
            if self.wants("full-" + codec):
                todo["ferry " + codec] = copy(codec)
        if self.restic:
            todo[RESTIC] = other(self.restic)
        if self.borg:
            todo[BORG] = other(self.borg, "full")
        self.rounds(work, todo)
        os.remove(out)
        for program in self.others:
            program.drop("full")
        for codec in ("auto", "zstd"):
            if self.wants("full-" + codec):
                self.check_restore(codec, self.data.base)
                self.ferry.drop(codec)

    def base_repositories(self):
        """Repositories of each program that hold the first state, made when they are first needed."""
        if os.path.exists(self.ferry.place("base")):
            return
        say("making repositories with the first state")
        folder = os.path.dirname(self.data.base)
        try:
            self.ferry.fresh("base")
            self.ferry.copy(folder, "base")
            if self.restic:
                self.restic.fresh("base")
                self.restic.backup("base", folder)
        except BaseException:
            self.ferry.drop("base")  # the next work tries again
            raise

    # Next states.

    def do_next(self, work):
        self.base_repositories()
        base, later = os.path.dirname(self.data.base), os.path.dirname(self.data.next)
        if self.borg:
            self.borg.fresh("base")
            self.borg.backup("base", base, "base")

        def overlay():
            dataset.warm(self.data.overlay)
            self.ferry.clone("base", "next")
            os.rename(self.data.overlay, f"{base}/bench.next")
            try:
                return self.ferry.copy(base, "next")
            finally:
                os.rename(f"{base}/bench.next", self.data.overlay)

        def virtnbdbackup():
            dataset.warm(self.data.increment)
            self.ferry.clone("chain", "next")
            self.data.add_increment()
            try:
                return self.ferry.copy(self.data.chain, "next")
            finally:
                self.data.remove_increment()

        def later_state(program, *arguments):
            def once():
                dataset.warm(self.data.next)
                program.clone("base", "next")
                if program is self.ferry:
                    return program.copy(later, "next")
                return program.backup("next", later, *arguments)
            return once

        # The chain is checked first: it is as large as an image.
        todo, machines = {}, {"ferry virtnbdbackup": "libvirt/3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f", "ferry overlay": "bench.raw", "ferry raw": "bench.raw"}
        if self.wants("next-overlay"):
            todo["ferry overlay"] = overlay
        if self.wants("next-virtnbdbackup"):
            self.data.make_chain()
            self.ferry.clone("base", "chain")
            self.ferry.copy(self.data.chain, "chain")
            todo["ferry virtnbdbackup"] = virtnbdbackup
        if self.wants("next-raw", "next-stored"):
            todo["ferry raw"] = later_state(self.ferry)
        if self.restic:
            todo[RESTIC] = later_state(self.restic)
        if self.borg:
            todo[BORG] = later_state(self.borg, "next")
        self.rounds(work, todo)
        for program in self.others:
            program.drop("next")
        if self.borg:
            self.borg.drop("base")
        for program, machine in machines.items():
            if program not in todo:
                continue
            todo[program]()
            if program == "ferry virtnbdbackup":
                self.ferry.drop("chain")
                self.data.drop_chain()
            self.check_restore("next", self.data.next, machine=machine)
        self.ferry.drop("next")
        if not self.config.keep:
            self.data.drop_next()

    # Nothing new.

    def do_nothing_new(self, work):
        say(f"making a repository with {self.config.many_points} points")
        folder = os.path.dirname(self.data.base)
        self.ferry.fresh("many")
        self.ferry.call("many", "repo", "init", self.ferry.place("many"))
        self.data.go("points", "-repository", self.ferry.place("many"), "-count", str(self.config.many_points))

        def copy(*key):
            return self.ferry.measure("many", "copy", folder, self.ferry.place("many"), "--source-name", "bench", *key, key=False)

        copy()

        def again():
            one = copy()
            if one.read > 4096:
                sys.exit(f"a copy with nothing new read {one.read} bytes of the source, which is more than the image's header")
            return one

        self.rounds(work, {"ferry": again})
        self.ferry.drop("many")

    # What is done with a repository that is there.

    def do_verify(self, work):
        self.base_repositories()

        def ferry():
            dataset.warm(self.ferry.place("base"))
            return self.ferry.measure("base", "verify", self.ferry.place("base"))

        def restic():
            dataset.warm(self.restic.place("base"))
            return self.restic.measure("base", "check", "-q", "--read-data")

        self.rounds(work, {"ferry": ferry} | ({RESTIC: restic} if self.restic else {}))

    def do_restore(self, work):
        self.base_repositories()
        restored = f"{self.config.work}/restored"
        out = f"{self.config.work}/out/bench.raw"

        def cp():
            dataset.warm(self.data.base)
            one = run(["cp", "--sparse=always", self.data.base, out], log=self.log)
            os.remove(out)
            return one

        def ferry():
            dataset.warm(self.ferry.place("base"))
            one = self.ferry.restore("base", restored, "bench.raw")
            self.compare(restored, self.data.base)
            return one

        def restic():
            dataset.warm(self.restic.place("base"))
            one = self.restic.measure("base", "restore", "-q", "--sparse", "latest", "--target", restored)
            shutil.rmtree(restored)
            return one

        self.rounds(work, {CP: cp, "ferry": ferry} | ({RESTIC: restic} if self.restic else {}))

    def do_replicate(self, work):
        self.base_repositories()
        place, out = self.ferry.place("base"), f"{self.config.work}/out/packs"

        def cp():
            dataset.warm(place)
            shutil.rmtree(out, ignore_errors=True)
            one = run(["cp", "-r", f"{place}/packs", out], output=out, log=self.log)
            shutil.rmtree(out)
            return one

        def ferry():
            dataset.warm(place)
            self.ferry.fresh("replica")
            return self.ferry.copy(place, "replica", *(["--same-keys"] if self.config.encrypt else []))

        def restic():
            dataset.warm(self.restic.place("base"))
            shutil.rmtree(self.restic.place("replica"), ignore_errors=True)
            os.makedirs(self.restic.cache("replica"), exist_ok=True)
            from_base = ["--from-repo", self.restic.place("base"), "--from-password-file", self.restic_password()]
            self.restic.call("replica", "init", "-q", "--copy-chunker-params", *from_base)
            return self.restic.measure("replica", "copy", "-q", *from_base, output=self.restic.place("replica"))

        self.rounds(work, {"cp -r, sync": cp, "ferry": ferry} | ({RESTIC: restic} if self.restic else {}))
        self.check_restore("replica", self.data.base)
        for program in (self.ferry, self.restic):
            if program:
                program.drop("replica")

    def restic_password(self):
        path = f"{self.config.work}/restic-password"
        with open(path, "w", encoding="utf-8") as file:
            file.write("bench\n")
        return path

    def do_drop(self, work):
        self.base_repositories()
        points = self.config.points
        say(f"making repositories with {points} points")
        image = f"{self.config.work}/states/bench.raw"
        os.makedirs(os.path.dirname(image), exist_ok=True)
        dataset.call("cp", "--sparse=always", self.data.base, image, log=self.log)
        for program in filter(None, (self.ferry, self.restic)):
            program.clone("base", "points")
        for number in range(1, points):
            self.data.go("content", "-change", image, "-mib", str(max(1, self.config.changed_mib // 10)), "-seed", str(100 + number))
            self.ferry.copy(os.path.dirname(image), "points")
            if self.restic:
                self.restic.backup("points", os.path.dirname(image))
            if number == points // 2:
                self.ferry.clone("points", "half")

        def ferry(repository):
            def once():
                self.ferry.clone(repository, "dropped")
                return self.drop_point("dropped")
            return once

        def restic():
            self.restic.clone("points", "dropped")
            listed = self.text(*self.restic.command("snapshots", "--json"), env=self.restic.env("dropped"))
            middle = [part.split('"')[1] for part in listed.split('"short_id":')[1:]][points // 2]
            return self.restic.measure("dropped", "forget", "-q", "--prune", middle)

        self.rounds(work, {"ferry, half the points": ferry("half"), "ferry": ferry("points")} | ({RESTIC: restic} if self.restic else {}))
        self.trees = self.tree_bytes("points") / self.tree_bytes("half")
        self.results.add(work, "ferry packs read", Figure(self.data_packs_read_by_drop()))
        self.check_restore("dropped", image)
        for program in filter(None, (self.ferry, self.restic)):
            program.drop("points")
            program.drop("dropped")
        self.ferry.drop("half")
        shutil.rmtree(os.path.dirname(image))

    def drop_point(self, repository):
        """Forget the point in the middle and reclaim without grace: the times of both together. The budget
        is too small to move anything: for that packs must be read, and a later run may do it."""
        place = self.ferry.place(repository)
        points = self.ferry.points(repository)
        forget = self.ferry.measure(repository, "forget", place, "--point", points[len(points) // 2])
        reclaim = self.ferry.measure(repository, "reclaim", place, "--grace", "0", "--max-bytes", "1")
        return Run(forget.seconds + reclaim.seconds, forget.synced + reclaim.synced, forget.cpu + reclaim.cpu, max(forget.memory, reclaim.memory))

    def data_packs_read_by_drop(self):
        """How many data packs are read when a point is dropped, by the access times of their files. They show the first
        read of a file that was last read long ago; a verification shows that they do so here. Before, the index is made to
        cover all packs: of up to three that no segment covers whoever looks something up reads the tables, and no block."""
        def read(work):
            dataset.clone(self.ferry.place("points"), self.ferry.place("dropped"))
            dataset.copied(self.ferry.cache("points"), self.ferry.cache("dropped"))
            self.ferry.measure("dropped", "repo", "reindex", self.ferry.place("dropped"))
            packs = [path for path in glob.glob(f"{self.ferry.place('dropped')}/packs/*/*") if is_data_pack(path)]
            for path in packs:
                os.utime(path, (946684800, os.stat(path).st_mtime))
            work()
            return sum(1 for path in packs if os.path.exists(path) and os.stat(path).st_atime != 946684800)

        if read(lambda: self.ferry.measure("dropped", "verify", self.ferry.place("dropped"))) == 0:
            sys.exit(f"{self.config.work} lies on a file system without access times: nothing shows which packs are read")
        return read(lambda: self.drop_point("dropped"))

    def tree_bytes(self, repository):
        """Bytes of the packs that trees are in."""
        return sum(os.path.getsize(path) for path in glob.glob(f"{self.ferry.place(repository)}/packs/*/*") if not is_data_pack(path))

    # Many machines.

    def do_machines(self, work):
        say("making two repositories with 100,000 points of 2,000 machines each")
        with machines.Machines(self.config.work, self.log, self.ferry, self.data.go) as server:
            self.rounds(work, {"ferry explain": server.explain, "ferry session": server.session, "ferry status": server.status})
            say("the server idles for a minute")
            self.results.add(work, "ferry idle", server.idle(60))

    # Many blocks.

    def do_scale(self, work):
        say(f"making a repository with {self.config.scale_blocks} blocks, and marking it")
        test = scale.Scale(self.config.work, self.log)
        test.measure(self.config.scale_blocks, self.results, work)
        for number in range(min(3, self.config.runs)):
            say(f"what its memory grows by: round {number + 1} of {min(3, self.config.runs)}")
            test.slope(self.results, work)

    # Checks, and words for the report.

    def check_restore(self, repository, image, machine="bench.raw"):
        restored = f"{self.config.work}/restored"
        self.ferry.restore(repository, restored, machine)
        self.compare(restored, image)

    @staticmethod
    def compare(restored, image):
        disk, = glob.glob(f"{restored}/*.raw")
        dataset.call("cmp", image, disk)
        shutil.rmtree(restored)

    def bars(self):
        wanted = [bar for bar in BARS if bar.row in self.config.rows]
        for bar in wanted:
            if bar.metric == "read":
                bar.base = self.data.changed if bar.row != "scale" else None
            half = self.results.median("drop", "ferry, half the points", "seconds")
            if bar.base_text.startswith("half") and half and self.trees:
                bar.base = half * self.trees
        peak = self.results.peak([key for key in self.results.runs if key[0] not in OWN_DATA and key[1].startswith("ferry")])
        if peak and "memory" in self.config.rows:
            self.results.runs.pop(("all", "ferry"), None)  # it comes last
            self.results.add("all", "ferry", Run(0, 0, 0, peak))
            wanted.append(Bar("memory", "peak memory, the most of any of these", "all", "ferry", "memory", 300 * MEBIBYTE))
        return wanted

    @staticmethod
    def text(*command, env=None):
        return subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout.decode().strip()

    @staticmethod
    def processor():
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0] if names else platform.machine()

    def versions(self):
        commands = [["zstd", "--version"]] + [program.command("version" if program is self.restic else "--version") for program in self.others]
        return "; ".join(self.text(*command).strip("* ").split(", by")[0].split(" compiled")[0] for command in commands) + "."


def is_data_pack(path):
    """By its header: docs/format.md section 7.1."""
    with open(path, "rb") as file:
        header = file.read(21)
    return len(header) == 21 and header[:8] == b"FerryPak" and header[20] == 1

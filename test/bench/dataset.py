"""What bench.py works on: the image, its next state in three forms, and repositories that hold the first state.

Repositories are made once and cloned by hard links for each run: no program compared here changes a file that it has written.
"""

import contextlib
import os
import shutil
import subprocess
import sys

from measure import say

CLUSTER = 64 << 10


def call(*command, env=None, log=None):
    """A command that is not measured."""
    with open(log or os.devnull, "ab") as out:
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=out, check=False)
        out.write(done.stdout)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}; see {log or 'above'}")
    return done.stdout.decode()


def clone(source, target):
    """A copy of a folder whose files are shared."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link, symlinks=True)


def copied(source, target):
    """A copy of a folder of caches, which are written in place."""
    shutil.rmtree(target, ignore_errors=True)
    if os.path.isdir(source):
        shutil.copytree(source, target, symlinks=True)
    else:
        os.makedirs(target)


def warm(*paths):
    """Read files, so that they are in the page cache."""
    buffer = bytearray(1 << 20)
    for path in paths:
        names = [path]
        if os.path.isdir(path):
            names = [os.path.join(folder, name) for folder, _, files in os.walk(path) for name in files]
        for name in names:
            with open(name, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


class Dataset:
    """The image and its next states below a folder, made when they are asked for."""

    def __init__(self, work, config, log):
        self.work, self.config, self.log = work, config, log
        self.base = f"{work}/base/bench.raw"
        self.next = f"{work}/next/bench.raw"
        self.overlay = f"{work}/overlay/bench.next"
        self.chain = f"{work}/chain"
        self.increment = f"{work}/increment"
        self.recipe = f"{work}/recipe"
        self.changed = 0

    def go(self, program, *arguments):
        return call("go", "run", f"./test/bench/{program}", *arguments, log=self.log)

    def make_base(self):
        """A raw ext4 file system. The same content gives the same image: fixed ids and times, no journal."""
        c = self.config
        recipe = f"{c.image_mib} {c.content_mib} {c.changed_mib}"
        if os.path.exists(self.recipe):
            with open(self.recipe, encoding="utf-8") as file:
                words = file.read().split("\n")
            if words[0] == recipe:
                self.changed = int(words[1])
                return
        say(f"making an image of {c.image_mib} MiB, and its next state")
        for folder in ("base", "next", "overlay", "content"):
            shutil.rmtree(f"{self.work}/{folder}", ignore_errors=True)
        for folder in ("base", "next", "overlay"):
            os.makedirs(f"{self.work}/{folder}")
        self.go("content", "-out", f"{self.work}/content", "-mib", str(c.content_mib), "-system-mib", str(c.content_mib))
        with open(self.base, "wb") as file:
            file.truncate(c.image_mib << 20)
        identity = "0f0f0f0f-0000-4000-8000-00000000bead"
        call("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", "-U", identity,
             "-E", f"hash_seed={identity},lazy_itable_init=0,root_owner=0:0", "-d", f"{self.work}/content", self.base,
             env=os.environ | {"E2FSPROGS_FAKE_TIME": "1767225600"}, log=self.log)
        shutil.rmtree(f"{self.work}/content")
        call("cp", "--sparse=always", self.base, self.next, log=self.log)
        self.changed = int(self.go("content", "-change", self.next, "-mib", str(c.changed_mib)))
        # The overlay is made beside the image that it stands on, and waits elsewhere until it is the next state.
        draft = f"{self.work}/base/bench.next.tmp"
        call("qemu-img", "create", "-q", "-f", "qcow2", "-b", "../next/bench.raw", "-F", "raw", draft, log=self.log)
        call("qemu-img", "rebase", "-b", "bench.raw", "-F", "raw", draft, log=self.log) # writes what differs
        os.rename(draft, self.overlay)
        with open(self.recipe, "w", encoding="utf-8") as file:
            file.write(f"{recipe}\n{self.changed}")

    def make_chain(self):
        """A virtnbdbackup folder with the full backup, and the files of an increment that waits beside it."""
        if os.path.exists(self.increment):
            return
        say("making a virtnbdbackup chain")
        self.go("chain", "-out", self.chain, "-base", self.base)
        full = set(self.files(self.chain))
        self.go("chain", "-out", self.chain, "-base", self.base, "-next", self.next)
        for name in set(self.files(self.chain)) - full:
            os.makedirs(os.path.dirname(f"{self.increment}/{name}"), exist_ok=True)
            os.rename(f"{self.chain}/{name}", f"{self.increment}/{name}")

    @staticmethod
    def files(folder):
        return [os.path.relpath(os.path.join(where, name), folder) for where, _, names in os.walk(folder) for name in names]

    def add_increment(self):
        for name in self.files(self.increment):
            os.link(f"{self.increment}/{name}", f"{self.chain}/{name}")

    def remove_increment(self):
        for name in self.files(self.increment):
            os.remove(f"{self.chain}/{name}")

    def drop_chain(self):
        for folder in (self.chain, self.increment):
            shutil.rmtree(folder, ignore_errors=True)

    def drop_next(self):
        """Remove the next state, and what says that the images are there."""
        for folder in (self.next, self.overlay):
            shutil.rmtree(os.path.dirname(folder), ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.recipe)

    def drop_base(self):
        self.drop_next()
        shutil.rmtree(os.path.dirname(self.base), ignore_errors=True)

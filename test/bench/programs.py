"""How each program that bench.py compares is called, with folders of its own for repository and cache."""

import json
import os
import shutil

import dataset
import measure


class Program:
    """A program with named repositories below a folder. Each has its cache beside it."""

    name = ""

    def __init__(self, work, log):
        self.work, self.log = work, log

    def place(self, repository):
        return f"{self.work}/repositories/{self.name}-{repository}"

    def cache(self, repository):
        return f"{self.work}/cache/{self.name}-{repository}"

    def fresh(self, repository):
        """Make room for a repository that does not exist yet."""
        for path in (self.place(repository), self.cache(repository)):
            shutil.rmtree(path, ignore_errors=True)
        os.makedirs(f"{self.work}/repositories", exist_ok=True)
        os.makedirs(self.cache(repository))

    def clone(self, repository, to):
        dataset.clone(self.place(repository), self.place(to))
        dataset.copied(self.cache(repository), self.cache(to))

    def drop(self, repository):
        for path in (self.place(repository), self.cache(repository)):
            shutil.rmtree(path, ignore_errors=True)

    def env(self, _):
        return dict(os.environ)

    def call(self, repository, *arguments):
        return dataset.call(*self.command(*arguments), env=self.env(repository), log=self.log)

    def measure(self, repository, *arguments, output=None):
        return measure.run(self.command(*arguments), output=output, env=self.env(repository), log=self.log)

    def command(self, *arguments):
        return [self.name, *arguments]


class Ferry(Program):
    name = "ferry"

    def __init__(self, work, log, binary, encrypt):
        super().__init__(work, log)
        self.binary, self.encrypt = os.path.abspath(binary), encrypt
        self.report = f"{work}/report.json"
        self.identity = f"{work}/identity.txt"
        self.profile = None

    def key(self):
        """An age key, and not a passphrase, which is made to take about a second of computing each time that it is used."""
        return ["--identity", self.identity] if self.encrypt else []

    def create(self):
        """Options that make a repository."""
        if not self.encrypt:
            return ["--create"]
        if not os.path.exists(self.identity):
            dataset.call(self.binary, "key", "generate", self.identity, log=self.log)
        with open(self.identity, encoding="utf-8") as file:
            public, = [line.split()[-1] for line in file if line.startswith("# public key:")]
        return ["--create", "--encrypt", "--recipient", public]

    def command(self, *arguments):
        return [self.binary, *arguments]

    def env(self, repository):
        env = os.environ | {"XDG_CACHE_HOME": self.cache(repository)}
        return env | {"FERRY_CPUPROFILE": self.profile} if self.profile else env

    def measure(self, repository, *arguments, output=None, key=True):
        command = self.command(*arguments, "--json", *(self.key() if key else []))
        one = measure.run(command, output=output, env=self.env(repository), log=self.log, stdout=self.report)
        if arguments[0] == "copy":
            one.read = measure.field(self.report, "sourceBytesRead")
        return one

    def copy(self, source, repository, *options):
        """Copy the newest point of a folder that is called bench wherever it lies."""
        if not os.path.exists(self.place(repository)):
            options += tuple(self.create())
        return self.measure(repository, "copy", source, self.place(repository), "--source-name", "bench", *options, output=self.place(repository))

    def points(self, repository):
        """Ids of all points, oldest first."""
        self.measure(repository, "points", self.place(repository))
        with open(self.report, encoding="utf-8") as file:
            listed = json.load(file)["points"]
        return [point["id"] for point in sorted(listed, key=lambda point: point["created"])]

    def restore(self, repository, folder, machine):
        shutil.rmtree(folder, ignore_errors=True)
        return self.measure(repository, "restore", self.place(repository), machine, "--to", folder)


class Restic(Program):
    name = "restic"

    def __init__(self, work, log, binary):
        super().__init__(work, log)
        self.binary = binary

    def command(self, *arguments):
        return [self.binary, *arguments]

    def env(self, repository):
        return os.environ | {
            "RESTIC_REPOSITORY": self.place(repository), "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": self.cache(repository),
        }

    def fresh(self, repository):
        super().fresh(repository)
        self.call(repository, "init", "-q")

    def backup(self, repository, folder):
        return self.measure(repository, "backup", "-q", folder, output=self.place(repository))


class Borg(Program):
    name = "borg"

    def env(self, repository):
        return os.environ | {
            "BORG_BASE_DIR": self.cache(repository), "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes", "BORG_PASSPHRASE": "bench",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }

    def fresh(self, repository):
        super().fresh(repository)
        self.call(repository, "init", "-e", "repokey-blake2", self.place(repository))

    def backup(self, repository, folder, archive):
        return self.measure(repository, "create", "-C", "zstd,1", f"{self.place(repository)}::{archive}", folder, output=self.place(repository))

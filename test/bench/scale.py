"""A repository of many blocks that is made up, opened, marked, and marked again as from a distant storage, for bench.py.

The steps are those of the scale test of internal/repo: index, trees, points, checkpoint and log are as ferry writes them, packs of
blocks are holes. What memory grows by with the repository shows between two repositories of the same blocks, in few and in many packs.
"""

import contextlib
import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import dataset
from measure import Figure, Run, run

# The blocks, and how many a pack has of them, of the two repositories that are compared. A pack of 64 MiB has 512 blocks that do not shrink.
SLOPE_BLOCKS, FEW_PACKS_OF, MANY_PACKS_OF, PACK_BLOCKS = 524288, 64, 4, 512

# What the S3 server is told, and asked with.
KEYS = {"AWS_ACCESS_KEY_ID": "ferry-bench", "AWS_SECRET_ACCESS_KEY": "ferry-bench-secret", "AWS_REGION": "us-east-1"}


class Scale:
    """Runs the scale test in a folder of its own."""

    def __init__(self, work, log):
        self.folder, self.log = f"{work}/scale", log
        self.binary = f"{work}/scale.test"
        dataset.call("go", "test", "-tags", "scale", "-c", "-o", self.binary, "./internal/repo", log=log)

    def steps(self, blocks, pack_of=PACK_BLOCKS, bucket=False):
        """What each step took, by its name; with bucket some are done as well through an S3 server, if there is one."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        results = f"{self.folder}/results"
        env = os.environ | KEYS | {
            "FERRY_SCALE_BLOCKS": str(blocks), "FERRY_SCALE_DIR": self.folder, "FERRY_SCALE_PACK_OF": str(pack_of), "FERRY_SCALE_RESULTS": results,
        }
        try:
            with self.server() if bucket else contextlib.nullcontext("") as env["FERRY_SCALE_S3"]:
                run([self.binary, "-test.run", "TestScaleMark$", "-test.timeout", "3h", "-test.v"], env=env, log=self.log)
            with open(results, encoding="utf-8") as file:
                return {step["step"]: step for step in map(json.loads, file)}
        finally:
            shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def server(self):
        """An S3 server whose buckets are the folders of the test; empty where there is no versitygw (make deps)."""
        programs = glob.glob(".tools/versitygw-*")
        if not programs:
            yield ""
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        env = os.environ | {"ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"]}
        with open(self.log, "ab") as log:
            server = subprocess.Popen([programs[-1], "--port", address, "--keep-alive", "--quiet", "posix", self.folder], env=env, stdout=log, stderr=log)
        try:
            host, port = address.split(":")
            for _ in range(300):
                with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
                    break
                if server.poll() is not None:
                    sys.exit(f"versitygw ended; see {self.log}")
                time.sleep(0.1)
            yield address
        finally:
            server.kill()
            server.wait()

    def measure(self, blocks, results, work):
        """Add the steps to the results, and the most memory that any of them took: making it up is none of Ferry's work."""
        steps = self.steps(blocks, bucket=True)
        del steps["make"]
        for name, step in steps.items():
            one = Run(step["seconds"], step["seconds"], step["processor"], step["peak"], read=step["read"])
            results.add(work, f"ferry {name}", one)
            if step["requests"]:
                results.add(work, f"ferry {name}, requests", Figure(step["requests"]))
        results.add(work, "ferry peak", Run(0, 0, 0, max(step["peak"] for step in steps.values())))

    def slope(self, results, work):
        """Bytes of memory that is not of files for each further block, of opening and of marking."""
        few, many = self.steps(SLOPE_BLOCKS, FEW_PACKS_OF), self.steps(SLOPE_BLOCKS, MANY_PACKS_OF)
        packs = SLOPE_BLOCKS // MANY_PACKS_OF - SLOPE_BLOCKS // FEW_PACKS_OF
        for name in ("open", "mark", "open cold", "mark cold"):
            grown = many[name]["anonymous"] - few[name]["anonymous"]
            results.add(work, f"ferry {name}, slope", Figure(grown / packs / PACK_BLOCKS))

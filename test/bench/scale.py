"""A repository of many blocks that is made up, opened, marked, and marked again as from a distant storage, for bench.py.

The steps are those of the scale test of internal/repo: index, trees, points, checkpoint and log are as ferry writes them, packs of
blocks are holes. What memory grows by with the repository shows between two repositories of the same blocks, in few and in many packs.
"""

import json
import os
import shutil

import dataset
from measure import Figure, Run, run

# The blocks, and how many a pack has of them, of the two repositories that are compared. A pack of 64 MiB has 512 blocks that do not shrink.
SLOPE_BLOCKS, FEW_PACKS_OF, MANY_PACKS_OF, PACK_BLOCKS = 524288, 64, 4, 512


class Scale:
    """Runs the scale test in a folder of its own."""

    def __init__(self, work, log):
        self.folder, self.log = f"{work}/scale", log
        self.binary = f"{work}/scale.test"
        dataset.call("go", "test", "-tags", "scale", "-c", "-o", self.binary, "./internal/repo", log=log)

    def steps(self, blocks, pack_of=PACK_BLOCKS):
        """What each step took, by its name."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        results = f"{self.folder}/results"
        env = os.environ | {
            "FERRY_SCALE_BLOCKS": str(blocks), "FERRY_SCALE_DIR": self.folder, "FERRY_SCALE_PACK_OF": str(pack_of), "FERRY_SCALE_RESULTS": results,
        }
        try:
            run([self.binary, "-test.run", "TestScaleMark$", "-test.timeout", "3h", "-test.v"], env=env, log=self.log)
            with open(results, encoding="utf-8") as file:
                return {step["step"]: step for step in map(json.loads, file)}
        finally:
            shutil.rmtree(self.folder)

    def measure(self, blocks, results, work):
        """Add the steps to the results, and the most memory that any of them took: making it up is none of Ferry's work."""
        steps = self.steps(blocks)
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

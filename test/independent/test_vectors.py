"""Tests of vectors.py and age.py: the vectors of docs/format-vectors.json hold, and what is changed in them is seen."""
from __future__ import annotations

import contextlib
import io
import json
import unittest
from pathlib import Path

import age
import vectors

FILE = Path(__file__).parents[2] / "docs" / "format-vectors.json"


class VectorsTest(unittest.TestCase):
    def test_the_vectors_of_the_format(self) -> None:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            wrong = vectors.check_vectors(FILE)
        self.assertEqual(0, wrong, out.getvalue())

    def test_every_damaged_file_is_seen(self) -> None:
        """Each file that ends with its checksum, changed in a byte of each of its parts."""
        known = json.loads(FILE.read_bytes())
        shared, tried = known["parts"], 0
        for case in known["vectors"]:
            if case["function"] not in ("openJob", "openPoint", "openPartial", "openVerified", "openLastRun", "openBlock", "openNote", "openPack",
                                        "openSegment", "openEntries") or case.get("refused"):
                continue
            at = -2 if case["function"] == "openPartial" else -1
            data = bytes.fromhex(shared.get(case["input"][at], case["input"][at]))
            for place in range(0, len(data), max(1, len(data) // 40)):
                changed = bytearray(data)
                changed[place] ^= 1 << place % 8
                inputs = list(case["input"])
                inputs[at] = changed.hex()
                found = vectors.outcome(case | {"input": inputs}, shared)
                self.assertNotEqual((case["output"], ""), found, f"{case['name']}: flip at {place} not seen")
                self.assertTrue(found[1], f"{case['name']}: flip at {place} is not refused")
                tried += 1
        self.assertGreater(tried, 500)


class AgeTest(unittest.TestCase):
    def test_x25519(self) -> None:
        """RFC 7748, section 5.2."""
        self.assertEqual("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552", age.x25519(
            bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
            bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")).hex())

    def test_chacha20(self) -> None:
        """RFC 8439, section 2.3.2."""
        self.assertEqual("10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
                         "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e",
                         age.chacha_block(bytes(range(32)), 1, bytes.fromhex("000000090000004a00000000")).hex())

    def test_every_flip_in_a_key_file_is_seen(self) -> None:
        known = json.loads(FILE.read_bytes())
        [case] = [c for c in known["vectors"] if c["name"] == "keys: key file, x25519"]
        secrets, file = (bytes.fromhex(known["parts"].get(case["input"][i], case["input"][i])) for i in (0, 4))
        self.assertIn(b"ferry-key-ring", age.open_file(file, [secrets.decode()]))
        for at in range(0, len(file), 5):
            changed = bytearray(file)
            changed[at] ^= 1 << at % 8
            with self.assertRaises((age.WrongKey, ValueError), msg=f"flip at {at}"):
                age.open_file(bytes(changed), [secrets.decode()])


if __name__ == "__main__":
    unittest.main()

"""Tests of reader.py against repositories written here by hand, from docs/format.md and without any code of the reader.

Run: python3 -m unittest test_reader   (in this folder)
"""
from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import io
import json
import struct
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import crypto
import reader

REPOSITORY = "11" * 16
PRELUDE = struct.pack("<III", 1, 0, 0)
CREATED, STAMP = "2026-11-22T01:00:00.5Z", "20261122T010000.500000000Z"


# --- the writer ------------------------------------------------------------------------------------------------------

def u(context: str, message: bytes) -> bytes:
    return hmac.new(context.encode(), message, hashlib.sha256).digest()


ID_KEY = bytes(32)


def k(context: str, message: bytes) -> bytes:
    return hmac.new(u(context, ID_KEY), message, hashlib.sha256).digest()


class Ring:
    """Keys of an encrypted repository, and what is done with them; AES itself is the reader's, which NIST's vectors check."""

    def __init__(self) -> None:
        self.id_key, self.data = b"i" * 32, b"d" * 32
        self.kit = json.dumps({"format": "ferry-key-ring", "version": 1, "repository": REPOSITORY, "idKey": self.id_key.hex(),
                               "dataKeys": [{"generation": 1, "key": self.data.hex(), "created": CREATED}]})

    def derive(self, salt: bytes, info: str) -> bytes:
        extracted = hmac.new(salt or bytes(32), self.data, hashlib.sha256).digest()
        return hmac.new(extracted, info.encode() + b"\1", hashlib.sha256).digest()

    def mac(self, info: str, message: bytes) -> bytes:
        return hmac.new(self.derive(b"", info), message, hashlib.sha256).digest()

    def seal(self, salt: bytes, info: str, nonce: bytes, plain: bytes, data: bytes) -> bytes:
        """GCM, its hash multiplied bit by bit."""
        cipher = crypto.AES256(self.derive(salt, info))
        stream = b"".join(cipher.encrypt(nonce + struct.pack(">I", 2 + i)) for i in range(len(plain) // 16 + 1))
        text = bytes(a ^ b for a, b in zip(plain, stream))
        factor, value = int.from_bytes(cipher.encrypt(bytes(16)), "big"), 0
        padded = [part + bytes(-len(part) % 16) for part in (data, text)]
        hashed = b"".join(padded) + struct.pack(">QQ", 8 * len(data), 8 * len(text))
        for at in range(0, len(hashed), 16):
            value ^= int.from_bytes(hashed[at:at + 16], "big")
            product, power = 0, factor
            for bit in range(127, -1, -1):
                product ^= power if value >> bit & 1 else 0
                power = power >> 1 ^ (0xE1 << 120 if power & 1 else 0)
            value = product
        tag = value ^ int.from_bytes(cipher.encrypt(nonce + b"\0\0\0\1"), "big")
        return text + tag.to_bytes(16, "big")


def crc(data: bytes) -> bytes:
    """CRC-32C bit by bit, as a division of polynomials."""
    value = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            value = value >> 1 ^ (0x82F63B78 if (value ^ byte >> bit) & 1 else 0)
    return struct.pack("<I", value ^ 0xFFFFFFFF)


class Writer:
    """Writes one repository with one point, an encrypted one with a key ring."""

    def __init__(self, root: Path, ring: Ring | None = None) -> None:
        self.root, self.previous, self.number, self.ring = root, bytes(32), 0, ring
        self.generation, self.prelude = (1, struct.pack("<III", 1, 1, 0)) if ring else (0, PRELUDE)
        self.frames: dict[int, list[tuple[bytes, bytes]]] = {1: [], 2: []}
        description = json.dumps({"format": "ferry-repository", "version": 1, "requiredFeatures": self.generation, "optionalFeatures": 0,
                                  "id": REPOSITORY, "created": CREATED, "hash": "hmac-sha-256", "blockSize": 4096,
                                  "encrypted": bool(ring)} | self.key_check()).encode()
        self.put("repository.json", description)
        self.log(repository={"id": REPOSITORY, "checksum": u("ferry v1 repository", description).hex()})

    def key_check(self) -> dict[str, str]:
        check = self.ring and self.ring.derive(bytes.fromhex(REPOSITORY), "ferry v1 key check")
        return {"keyCheck": check[:16].hex()} if check else {}

    def mac(self, info: str, message: bytes) -> bytes:
        return message + (self.ring.mac(info, message) if self.ring else bytes(32))

    def put(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def seal(self, name: str, context: str, data: bytes) -> str:
        checksum = u(context, data)
        self.put(name, data + checksum)
        return checksum.hex()

    def log(self, **members: object) -> None:
        self.number += 1
        payload = json.dumps({"time": CREATED, "writer": "22" * 16, **members}).encode()
        head = b"FerryLog" + PRELUDE + struct.pack("<IQ32sI", self.generation, self.number, self.previous, len(payload))
        self.previous = bytes.fromhex(self.seal(f"log/{self.number:012}", "ferry v1 log entry", self.mac("ferry v1 log", head + payload)))

    def add(self, kind: int, context: str, data: bytes) -> bytes:
        ident = k(context, data)
        if (ident, data) not in self.frames[kind]:
            self.frames[kind].append((ident, data))
        return ident

    def pack(self, kind: int, ident: str) -> dict[str, object]:
        """Write the frames of a kind as a pack; returns its item for the log."""
        sealed = bool(self.ring) and kind == 1
        head = b"FerryPak" + (self.prelude if sealed else PRELUDE) + struct.pack(
            "<BBH16s16sI", kind, 2, 0, bytes.fromhex(ident), bytes.fromhex(REPOSITORY), int(sealed))
        head, data, table = head + crc(head), b"", b""
        for number, (frame_id, plain) in enumerate(self.frames[kind]):
            stored, salt, counter = plain, bytes(16), 0
            if sealed:
                salt, counter = b"s" * 16, number
                known = b"ferry v1" + struct.pack("<BBI", kind, 0, len(plain)) + frame_id
                stored = self.ring.seal(salt, "ferry v1 frame", struct.pack("<IQ", 0, counter), plain, known)
            front = b"FRM1" + struct.pack("<BBHIIIIQ16s32s", kind, 0, 0, len(plain), len(stored), int(sealed), 0, counter, salt, frame_id)
            checksum = u("ferry v1 frame", front + stored)[:16]
            table += struct.pack("<32sIIIBBH16s", frame_id, 64 + len(data), len(stored), len(plain), kind, 0, 0, checksum)
            data += front + checksum + stored
        count, root = len(self.frames[kind]), u("ferry v1 pack", head + table)
        whole = head + data + table + struct.pack("<8sIIQQ32s", b"FerryEnd", count, 0, 64 + len(data), 0, root)
        self.put(f"packs/{ident[:2]}/{ident}", whole)
        return {"id": ident, "kind": "data" if kind == 1 else "nodes", "domain": REPOSITORY, "size": len(whole),
                "frames": count, "root": root.hex()}

    def segment(self, packs: list[tuple[str, int]]) -> dict[str, object]:
        """Write an index segment of packs given as (id, kind); returns its item for the log."""
        entries, filter_bits = [], bytearray(16)
        for number, (_, kind) in enumerate(packs):
            at = 64
            for ident, plain in self.frames[kind]:
                stored = len(plain) + (16 if self.ring and kind == 1 else 0)
                entries.append(struct.pack("<32sIIII", ident, number, at, stored, len(plain)))
                at += 96 + stored
        entries.sort(key=lambda e: (e[:32], struct.unpack("<II", e[32:40])))
        for entry in entries:
            a, b = struct.unpack_from("<QQ", entry, 8)
            for i in range(3):
                bit = (a + i * (b | 1)) % 2 ** 64 % 128
                filter_bits[bit // 8] |= 1 << bit % 8
        data = b"FerryIdx" + PRELUDE + struct.pack("<IQIBBHQ16x", len(packs), len(entries), 2, 1, 3, 0, 16)
        data += b"".join([bytes.fromhex(p) for p, _ in packs] + entries + [e[:8] for e in entries[::2]]) + filter_bits
        checksum = self.seal("index/" + "55" * 16, "ferry v1 index", data)
        return {"id": "55" * 16, "size": len(data) + 32, "checksum": checksum, "packs": [p for p, _ in packs]}

    def fixed(self, blocks: dict[int, bytes], size: int) -> dict[str, object]:
        """A tree of kind 1 with blocks of 4096 bytes; blocks not given are zeros."""
        count, height = -(-size // 4096), 1
        level = {i: self.add(1, "ferry v1 block", b) for i, b in blocks.items()}
        while True:
            nodes = {}
            for parent in sorted({i // 256 for i in level}):
                children = sorted(i for i in level if i // 256 == parent)
                presence = sum(1 << i % 256 for i in children).to_bytes(32, "little")
                node = bytes([1 if height == 1 else 2, height - 1, 0, 0]) + presence + b"".join(level[i] for i in children)
                nodes[parent] = self.add(2, "ferry v1 leaf" if height == 1 else "ferry v1 parent", node)
            if 256 ** height >= count:
                return self.tree(1, height, 4096, size, nodes.get(0, bytes(32)))
            level, height = nodes, height + 1

    def stream(self, blocks: list[bytes]) -> dict[str, object]:
        """A tree of kind 2."""
        level, height = [(bytes(32) if not any(b) else self.add(1, "ferry v1 block", b), len(b)) for b in blocks], 0
        while height == 0 or len(level) > 1:
            nodes, batch = [], []
            for i, entry in enumerate(level):
                batch.append(entry)
                if len(batch) == 256 or (len(batch) >= 16 and entry[0][31] < 2) or i == len(level) - 1:
                    node = struct.pack("<BBH", 4 if height else 3, height, len(batch))
                    node += b"".join(struct.pack("<32sQ" if height else "<32sI", *e) for e in batch)
                    context = "ferry v1 stream parent" if height else "ferry v1 stream leaf"
                    nodes.append((self.add(2, context, node), sum(e[1] for e in batch)))
                    batch = []
            level, height = nodes, height + 1
        return self.tree(2, height, 0, level[0][1], level[0][0])

    @staticmethod
    def tree(kind: int, height: int, block_size: int, size: int, top: bytes) -> dict[str, object]:
        record = struct.pack("<BBHIQ32s", kind, height, 0, block_size, size, top)
        return {"leafKind": kind, "height": height, "blockSize": block_size, "size": size, "top": top.hex(),
                "root": k("ferry v1 root", record).hex()}

    def point(self, trees: list[dict], objects: list[dict]) -> dict[str, object]:
        """Write the point file; returns its item for the log."""
        def s(*parts: bytes) -> bytes:
            return b"".join(struct.pack("<I", len(p)) + p for p in parts)
        key = s(b"ferry v1 machine key", b"proxmox", b"", b"", b"dump", b"100")
        ident = hashlib.sha256(s(b"ferry v1 point id", key, b"native \xff")).hexdigest()
        machine = k("ferry v1 machine", key)[:16].hex()
        header = json.dumps({"id": ident, "machine": machine, "created": CREATED, "domain": REPOSITORY, "sealed": False,
                             "trees": trees}).encode()
        body = json.dumps({"machine": {"platform": "proxmox", "nativeId": "100", "uuid": "", "sourceName": "dump",
                                       "instance": "", "name": "web01", "labels": []}, "zone": "unknown",
                           "origin": {"format": "vzdump", "source": "dump", "nativeId": "native %FF"}, "hops": [],
                           "objects": objects}).encode()
        file = f"points/{machine}/{STAMP}-{ident}"
        salt = bytes(16)
        if self.ring:
            salt = b"p" * 16
            body = self.ring.seal(salt, "ferry v1 point body", bytes(12), body, b"ferry v1" + bytes.fromhex(ident))
        data = b"FerryPnt" + self.prelude + struct.pack("<I16sII", self.generation, salt, len(header), len(body)) + header + body
        return {"id": ident, "machine": machine, "created": CREATED, "file": file,
                "checksum": self.seal(file, "ferry v1 point", self.mac("ferry v1 point", data))}


DISK = {0: b"\x01" * 4096, 300: b"x" * 4095 + b"\0", 511: b"end"}
DISK_SIZE = 511 * 4096 + 3
STREAM = [bytes([i % 251 + 1]) * (i % 5 + 1) for i in range(600)] + [bytes(40), b"tail"]


def write(root: Path, small: bool = False, ring: Ring | None = None) -> Writer:
    """A repository with one point; the small one leaves out the long stream, so that every byte of it can be tried."""
    w = Writer(root, ring)
    stream = [b"abc", bytes(9), b"def"] if small else STREAM
    disk = w.fixed({1: b"end"}, 4099) if small else w.fixed(DISK, DISK_SIZE)
    trees = [disk, w.fixed({}, 10 << 20), w.stream(stream)]
    objects = [{"role": "disk", "name": "../scsi0", "sectorSize": 512, "format": "vma", "tree": 0},
               {"role": "disk", "name": "zeros%0A", "sectorSize": 512, "format": "vma", "tree": 1},
               {"role": "archive", "name": "root", "tree": 2}, {"role": "tpm", "name": "state"},
               {"role": "configuration", "name": ".conf", "inline": base64.b64encode(b"cores: 2\n").decode()}]
    packs = [w.pack(1, "33" * 16), w.pack(2, "44" * 16)]
    index = w.segment([("33" * 16, 1), ("44" * 16, 2)])
    w.log(packs=packs, index=[index], points=[w.point(trees, objects)])
    return w


# --- the tests -------------------------------------------------------------------------------------------------------

class ReaderTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder, self.root = Path(folder.name), Path(folder.name) / "repository"

    def run_reader(self, *arguments: object) -> tuple[int, str]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = reader.main([str(a) for a in arguments])
        return code, out.getvalue()

    def test_list_verify_restore(self) -> None:
        write(self.root)
        self.assertEqual((0, "sound\n"), self.run_reader("verify", self.root))
        code, text = self.run_reader("list", self.root, "--json")
        self.assertEqual(0, code)
        [row] = json.loads(text)
        self.assertEqual(("web01", CREATED), (row["machine"], row["created"]))
        self.assertEqual({"role": "disk", "name": "../scsi0", "size": DISK_SIZE}, row["objects"][0])
        code, text = self.run_reader("list", self.root)
        self.assertEqual((0, 1), (code, text.count("\n")))
        target = self.folder / "out"
        code, text = self.run_reader("restore", self.root, row["id"][:8], "--to", target)
        self.assertEqual(0, code, text)
        disk = bytearray(DISK_SIZE)
        for i, block in DISK.items():
            disk[4096 * i:4096 * i + len(block)] = block
        found = {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}
        self.assertEqual({"%2E.%2Fscsi0.raw": bytes(disk), "zeros%0A.raw": bytes(10 << 20), "root.tar": b"".join(STREAM),
                          "state.raw": b"", "config/%2Econf": b"cores: 2\n"}, found)
        self.assertEqual(2, self.run_reader("restore", self.root, row["id"], "--to", target)[0])
        self.assertEqual(2, self.run_reader("restore", self.root, "zz", "--to", target)[0])

    def test_every_flip_is_seen(self) -> None:
        write(self.root, small=True)
        self.assertEqual([], reader.verify(self.root))
        for path in sorted(p for p in self.root.rglob("*") if p.is_file()):
            data = path.read_bytes()
            for at in range(len(data)):
                changed = bytearray(data)
                changed[at] ^= 1 << at % 8
                path.write_bytes(changed)
                self.assertTrue(reader.verify(self.root), f"{path.name}: flip at {at} not seen")
                if path.parent.name != self.root.name and at not in range(8, 16):  # those may read as a later version
                    self.assertEqual(1, self.run_reader("verify", self.root)[0], f"{path.name}: flip at {at}")
            for changed in (data[:-1], data + b"\0", b""):
                path.write_bytes(changed)
                self.assertTrue(reader.verify(self.root), f"{path.name}: wrong length not seen")
            path.unlink()
            lost_end = path.name == "000000000002"  # a log without its last entry is an older state, and sound
            self.assertEqual(lost_end, not reader.verify(self.root), f"{path.name}: loss not seen")
            path.write_bytes(data)

    def encrypted(self) -> tuple[Writer, Path]:
        """A small encrypted repository, and the file with its keys."""
        ring, keys = Ring(), self.folder / "kit.txt"
        keys.write_text(f"Keep this.\n-----BEGIN FERRY RECOVERY KIT-----\n{{\"format\": \"ferry-recovery-kit\", \"version\": 1, \"ring\": {ring.kit}}}\n-----END FERRY RECOVERY KIT-----\n")
        self.enterContext(mock.patch(f"{__name__}.ID_KEY", ring.id_key))
        return write(self.root, small=True, ring=ring), keys

    def test_encrypted(self) -> None:
        writer, keys = self.encrypted()
        self.assertEqual((0, "sound\n"), self.run_reader("verify", self.root, "--keys", keys))
        self.assertEqual(3, self.run_reader("verify", self.root)[0])
        [row] = json.loads(self.run_reader("list", self.root, "--json", "--keys", keys)[1])
        code, text = self.run_reader("restore", self.root, row["id"][:8], "--to", self.folder / "out", "--keys", keys)
        self.assertEqual(0, code, text)
        self.assertEqual(bytes(4096) + b"end", (self.folder / "out" / "%2E.%2Fscsi0.raw").read_bytes())
        whole = b"".join(p.read_bytes() for p in self.root.rglob("*") if p.is_file())
        self.assertNotIn(b"scsi0", whole)
        other = self.folder / "other.json"
        other.write_text(writer.ring.kit.replace((b"d" * 32).hex(), (b"e" * 32).hex()))
        self.assertEqual(1, self.run_reader("verify", self.root, "--keys", other)[0])

    def test_every_flip_of_an_encrypted_repository_is_seen(self) -> None:
        _, kit = self.encrypted()
        keys = reader.Keys(kit.read_bytes(), "kit")
        for path in sorted(p for p in self.root.rglob("*") if p.is_file()):
            data = path.read_bytes()
            for at in range(0, len(data), 7):
                changed = bytearray(data)
                changed[at] ^= 1 << at % 8
                path.write_bytes(changed)
                self.assertTrue(reader.verify(self.root, keys), f"{path.name}: flip at {at} not seen")
            path.write_bytes(data)

    def test_forgeries(self) -> None:
        """Files whose checksums fit, made without the key."""
        writer, kit = self.encrypted()
        keys = reader.Keys(kit.read_bytes(), "kit")
        forger = Writer(self.folder / "forger", None)
        forger.root, forger.previous, forger.number = self.root, writer.previous, writer.number
        forger.log(claimsWithdrawn=[{"point": "00" * 32, "job": "manual"}])
        self.assertEqual([], reader.verify(self.root, keys))
        forger.log(claims=[{"point": "00" * 32, "job": "manual"}])
        self.assertRegex("\n".join(map(str, reader.verify(self.root, keys))), "forged: no MAC")
        (self.root / "log" / f"{forger.number:012}").unlink()
        [point] = (self.root / "points").rglob("*-*")
        data = bytearray(point.read_bytes()[:-32])
        data[-40] ^= 1  # the body
        point.write_bytes(data + u("ferry v1 point", bytes(data)))
        self.assertRegex("\n".join(map(str, reader.verify(self.root, keys))), "checksum than the log says")
        with self.assertRaisesRegex(reader.Damage, "forged: the checksum holds, the MAC does not"):
            reader.check_mac(reader.Hashing("hmac-sha-256", keys.id_key, {}, keys), "ferry v1 point", 1, bytes(data), "point", 20)

    def test_wrong_trees_are_refused(self) -> None:
        """Files that are whole and agree with each other, but hold trees that are not canonical."""
        def fails(text: str, make) -> None:
            root = self.folder / text.replace(" ", "-")
            w = Writer(root)
            tree = make(w)
            item = w.point([tree], [{"role": "disk", "name": "d", "tree": 0}])
            w.log(packs=[w.pack(1, "33" * 16), w.pack(2, "44" * 16)], points=[item])
            self.assertRegex("\n".join(map(str, reader.verify(root))), text)

        def leaf(w: Writer, present: bytes, *ids: bytes) -> bytes:
            return w.add(2, "ferry v1 leaf", b"\1\0\0\0" + present.ljust(32, b"\0") + b"".join(ids))

        def stream_leaf(w: Writer, *entries: tuple[bytes, int]) -> bytes:
            node = struct.pack("<BBH", 3, 0, len(entries)) + b"".join(struct.pack("<32sI", *e) for e in entries)
            return w.add(2, "ferry v1 stream leaf", node)

        def block(w: Writer, data: bytes) -> bytes:
            return w.add(1, "ferry v1 block", data)

        fails("not canonical", lambda w: w.tree(1, 2, 4096, 10, leaf(w, b"\1", block(w, b"0123456789"))))
        fails("is empty", lambda w: w.tree(1, 1, 4096, 10, leaf(w, b"")))
        fails("behind the end", lambda w: w.tree(1, 1, 4096, 10, leaf(w, b"\2", block(w, b"0123456789"))))
        fails("9 bytes instead of 10", lambda w: w.tree(1, 1, 4096, 10, leaf(w, b"\1", block(w, b"012345678"))))
        fails("block of zeros", lambda w: w.tree(1, 1, 4096, 10, leaf(w, b"\1", block(w, bytes(10)))))
        fails("in no pack", lambda w: w.tree(1, 1, 4096, 10, leaf(w, b"\1", b"\7" * 32)))
        fails("stream of 3 bytes", lambda w: w.tree(2, 1, 0, 4, stream_leaf(w, (block(w, b"abc"), 3))))
        fails("does not end where", lambda w: w.tree(2, 1, 0, 18, stream_leaf(w, *[(bytes(32), 1)] * 18)))
        fails("3 bytes instead of 4", lambda w: w.tree(2, 1, 0, 4, stream_leaf(w, (block(w, b"abc"), 4))))


class PartsTest(unittest.TestCase):
    def test_names(self) -> None:
        for raw, encoded in ((b"a b", "a b"), (b"100%", "100%25"), ("ü/\u0085".encode(), "ü/%C2%85"), (b"\xff\xc3(", "%FF%C3("),
                             (b"\xed\xa0\x80", "%ED%A0%80"), (b"\n\x7f", "%0A%7F"), (b"\xe2\x82", "%E2%82")):
            self.assertEqual(encoded, reader.name_encode(raw))
            self.assertEqual(raw, reader.name_decode(encoded))
        self.assertEqual("%2E.%2F%5Ca", reader.file_name("../\\a"))

    def test_crc32c(self) -> None:
        self.assertEqual(0xE3069283, reader.crc32c(b"123456789"))

    def test_blake3(self) -> None:
        """From the test vectors that the authors of BLAKE3 publish."""
        cases = {0: ("92b2b75604ed3c761f9d6f62392c8a92", "2cc39783c223154fea8dfb7c1b1660f2"),
                 1: ("6d7878dfff2f485635d39013278ae14f", "b3e2e340a117a499c6cf2398a19ee0d2"),
                 1024: ("75c46f6f3d9eb4f55ecaaee480db732e", "7356cd7720d5b66b6d0697eb3177d9f8"),
                 1025: ("357dc55de0c7e382c900fd6e320acc04", "effaa245f065fbf82ac186839a249707"),
                 7169: ("ed9b1a922c046fdb3d423ae34e143b05", "554b0a5efea9ef183f2f9b931b749799"),
                 31744: ("efa53b389ab67c593dba624d898d0f73", "39772aef80e0ebe60596361e45b061e8")}
        for length, (keyed, derived) in cases.items():
            data = bytes(i % 251 for i in range(length))
            self.assertEqual(keyed, reader.blake3_keyed(b"whats the Elvish word for friend", data).hex()[:32])
            self.assertEqual(derived, reader.blake3_derive("BLAKE3 2019-12-27 16:29:52 test vectors context", data).hex()[:32])

    def test_vectors(self) -> None:
        key = b"".join(struct.pack("<I", len(p)) + p for p in (b"ferry v1 machine key", b"p", b"i", b"ab", b"", b"n"))
        cases = [{"name": "U", "function": "U", "hash": "hmac-sha-256", "context": "ferry v1 frame", "input": "00",
                  "output": u("ferry v1 frame", b"\0").hex()},
                 {"name": "K", "function": "K", "hash": "hmac-sha-256", "context": "ferry v1 block", "idKey": "00" * 32,
                  "input": "61", "output": k("ferry v1 block", b"a").hex()},
                 {"name": "key", "function": "machineKey", "input": [p.hex() for p in (b"p", b"i", b"AB", b"s", b"n")],
                  "output": key.hex()}]
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            path = Path(folder) / "vectors.json"
            path.write_text(json.dumps({"parts": {}, "vectors": cases}))
            self.assertEqual(0, reader.main(["vectors", str(path)]))
            cases[0]["output"] = "00" * 32
            path.write_text(json.dumps({"parts": {}, "vectors": cases}))
            self.assertEqual(1, reader.main(["vectors", str(path)]))


if __name__ == "__main__":
    unittest.main()

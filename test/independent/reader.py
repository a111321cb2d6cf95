#!/usr/bin/env python3
"""An independent reader of Ferry repositories, written from docs/format.md alone.

It needs nothing but Python 3.11. It reads repositories with either hash, encrypted ones with their key ring; of the codecs
it knows only 0 (none). It never writes to a repository. Section numbers in comments are those of docs/format.md.

    reader.py list REPO [--json] [--keys FILE]
    reader.py restore REPO POINT_ID_PREFIX --to DIR [--keys FILE]
    reader.py verify REPO [--keys FILE]
    reader.py vectors FILE.json

The file with the keys is a recovery kit without a passphrase, or the key ring in it.

Exit codes: 0 sound, 1 damage, 2 wrong usage, 3 sound as far as read, but uses something this program does not support.
"""
from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import io
import json
import re
import struct
import sys
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, Generator, Iterator

import crypto

MAX_PLAIN = 4194304
MAX_INLINE = 65536
FANOUT = 256
ZERO_ID = bytes(32)
BLOCK, NODE = 1, 2
NODE_CONTEXTS = {1: "ferry v1 leaf", 2: "ferry v1 parent", 3: "ferry v1 stream leaf", 4: "ferry v1 stream parent"}
HASHES = {"blake3-256": 1, "hmac-sha-256": 2}
RAW_ROLES = ("disk", "firmware", "tpm", "memory")


class Problem(Exception):
    """Something is wrong with a file of the repository, at an offset where one is known."""

    def __init__(self, file: str, offset: int | None, message: str) -> None:
        super().__init__(f"{file}{'' if offset is None else f' at {offset}'}: {message}")


class Damage(Problem):
    """The file contradicts the format, itself, or what the log says about it."""


class Unsupported(Problem):
    """The file is sound as far as checked, but uses something this program does not know."""


class Usage(Exception):
    """The command cannot be carried out as given."""


# --- BLAKE3, as its paper gives it; slow ------------------------------------------------------------------------------

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED, DERIVE_CONTEXT, DERIVE_MATERIAL = (1 << i for i in range(7))
Words = tuple[int, ...]


def _compress(value: Words, block: bytes, counter: int, flags: int) -> Words:
    """The compression function, cut to the eight words that hashing needs."""
    m = struct.unpack("<16I", block.ljust(64, b"\0"))
    v = [*value, *IV[:4], counter & 0xFFFFFFFF, counter >> 32, len(block), flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIXES):
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            for word, right, left in ((m[2 * i], 16, 20), (m[2 * i + 1], 8, 25)):
                va = va + vb + word & 0xFFFFFFFF
                vd ^= va
                vd = (vd >> right | vd << 32 - right) & 0xFFFFFFFF
                vc = vc + vd & 0xFFFFFFFF
                vb ^= vc
                vb = (vb >> 32 - left | vb << left) & 0xFFFFFFFF
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
        m = tuple(m[i] for i in PERMUTATION)
    return tuple(v[i] ^ v[i + 8] for i in range(8))


def _blake3(key: Words, data: bytes, flags: int, first: int = 0, top: bool = True) -> Words:
    """The chaining value of a subtree whose first chunk is number `first`; of the whole tree if `top`."""
    if len(data) > 1024:
        left = 1024 << ((len(data) - 1) // 1024).bit_length() - 1
        words = _blake3(key, data[:left], flags, first, False)
        words += _blake3(key, data[left:], flags, first + left // 1024, False)
        return _compress(key, struct.pack("<16I", *words), 0, flags | PARENT | (ROOT if top else 0))
    value, last = key, max(0, (len(data) - 1) // 64)
    for i in range(last + 1):
        ends = (CHUNK_START if i == 0 else 0) | (CHUNK_END | (ROOT if top else 0) if i == last else 0)
        value = _compress(value, data[64 * i:64 * i + 64], first, flags | ends)
    return value


def blake3_keyed(key: bytes, data: bytes) -> bytes:
    """BLAKE3 keyed_hash."""
    return struct.pack("<8I", *_blake3(struct.unpack("<8I", key), data, KEYED))


def blake3_derive(context: str, data: bytes) -> bytes:
    """BLAKE3 derive_key."""
    key = _blake3(IV, context.encode("ascii"), DERIVE_CONTEXT)
    return struct.pack("<8I", *_blake3(key, data, DERIVE_MATERIAL))


# --- keys (section 10) -----------------------------------------------------------------------------------------------

class Keys:
    """A key ring."""

    def __init__(self, text: bytes, file: str) -> None:
        found = re.search(rb"-----BEGIN FERRY RECOVERY KIT-----(.*)-----END FERRY RECOVERY KIT-----", text, re.DOTALL)
        value = parse_json(found[1] if found else text, file)
        ring = Members(value["ring"] if "ring" in value else value, file)
        if ring.get("format", str) != "ferry-key-ring":
            raise Damage(file, None, "not a key ring")
        if ring.get("version", int) != 1:
            raise Unsupported(file, None, "a key ring of a version other than 1")
        self.repository, self.id_key = ring.hex("repository", 16), ring.hex("idKey", 32)
        self.data: dict[int, bytes] = {}
        for item in ring.get("dataKeys", list):
            key = Members(item, file)
            generation = key.get("generation", int)
            if generation <= max(self.data, default=0):
                raise Damage(file, None, "generations of data keys out of order")
            if self.data:
                after = key.get("after", int)
                if after not in self.data:
                    raise Damage(file, None, f"the data key of generation {after} is missing")
                proof = crypto.hkdf(self.data[after], key.hex("key", 32), b"ferry v1 next data key %d" % generation)
                if proof != key.hex("proof", 32):
                    raise Damage(file, None, f"the proof of generation {generation} does not hold")
            self.data[generation] = key.hex("key", 32)
        if not self.data:
            raise Damage(file, None, "no data keys")
        self.ciphers: dict[tuple[int, bytes, str], crypto.GCM] = {}

    def derive(self, generation: int, salt: bytes, info: str, file: str) -> bytes:
        """D(generation, salt, info)."""
        if generation not in self.data:
            raise Damage(file, None, f"the key ring has no data key of generation {generation}")
        return crypto.hkdf(self.data[generation], salt, info.encode("ascii"))

    def check(self) -> bytes:
        """What repository.json must say as keyCheck."""
        return self.derive(min(self.data), self.repository, "ferry v1 key check", "")[:16]

    def open(self, generation: int, salt: bytes, info: str, nonce: bytes, sealed: bytes, data: bytes, file: str) -> bytes:
        """Decrypt; a tag that does not hold is damage."""
        use = generation, salt, info
        if use not in self.ciphers:
            self.ciphers[use] = crypto.GCM(self.derive(generation, salt, info, file))
        plain = self.ciphers[use].open(nonce, sealed, data)
        if plain is None:
            raise Damage(file, None, "forged: the checksum holds, the tag does not")
        return plain


# members that an entry without a MAC may have in an encrypted repository (section 10.6)
KEYLESS = {"time", "writer", "program", "claimsWithdrawn", "pointsRemoved", "condemned", "condemnedFiles", "deleted",
           "deletedFiles", "indexRemoved", "partialsEnded", "bad", "damaged"}


def check_mac(hashing: "Hashing", info: str, generation: int, body: bytes, file: str, offset: int) -> bool:
    """Check the MAC that ends a body. Returns False if it has none although the repository is encrypted."""
    message, mac = body[:-32], body[-32:]
    if generation == 0:
        check_zero(body, len(message), len(body), file, "MAC without a key")
        return hashing.ring is None
    if hashing.ring is None:
        raise Damage(file, offset, "has a MAC, and repository.json says that the repository is not encrypted")
    want = hmac.digest(hashing.ring.derive(generation, b"", info, file), message, "sha256")
    if not hmac.compare_digest(want, mac):
        raise Damage(file, len(message), "forged: the checksum holds, the MAC does not")
    return True


# --- small parts: hashes, names, times, JSON (sections 1 and 3) ------------------------------------------------------

@dataclass
class Hashing:
    """The functions U and K of section 3."""

    name: str
    id_key: bytes = bytes(32)
    keys: dict[str, bytes] = field(default_factory=dict)
    ring: Keys | None = None

    def u(self, context: str, message: bytes) -> bytes:
        """U(context, message), unkeyed."""
        if self.name == "hmac-sha-256":
            return hmac.digest(context.encode("ascii"), message, "sha256")
        return blake3_derive(context, message)

    def k(self, context: str, message: bytes) -> bytes:
        """K(context, message), keyed with the id key."""
        if context not in self.keys:
            self.keys[context] = self.u(context, self.id_key)
        if self.name == "hmac-sha-256":
            return hmac.digest(self.keys[context], message, "sha256")
        return blake3_keyed(self.keys[context], message)


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def name_encode(raw: bytes, also: str = "") -> str:
    """The name encoding of section 1; the characters in `also` are encoded too."""
    out = []
    for char in raw.decode("utf-8", "surrogateescape"):
        code = ord(char)
        if code < 0x20 or 0x7F <= code <= 0x9F or 0xDC80 <= code <= 0xDCFF or char == "%" or char in also:
            out.extend(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
        else:
            out.append(char)
    return "".join(out)


def name_decode(text: str) -> bytes:
    """The bytes of an encoded name; ValueError if a % is not followed by two hex digits."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError("a % without two hex digits in a name")
    return re.sub(rb"%(..)", lambda m: bytes.fromhex(m[1].decode()), text.encode("utf-8"), flags=re.DOTALL)


def file_name(text: str) -> str:
    """A safe file name, without extension, for an object whose encoded name is `text`."""
    safe = name_encode(name_decode(text), also="/\\")
    return "%2E" + safe[1:] if safe.startswith(".") else safe or "unnamed"


def time_stamp(text: str) -> str:
    """An RFC 3339 time as it stands in point file names: 20060102T150405.000000000Z."""
    match = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?Z", text, re.ASCII)
    if match is None:
        raise ValueError(f"not a time in UTC: {text!r}")
    return "".join(match.group(1, 2, 3)) + "T" + "".join(match.group(4, 5, 6)) + "." + (match[7] or "").ljust(9, "0") + "Z"


def _part(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def machine_key(platform: bytes, instance: bytes, uuid: bytes, source: bytes, native: bytes) -> bytes:
    """The canonical machine key of section 3."""
    parts = b"ferry v1 machine key", platform, instance, uuid.lower(), b"" if uuid else source, native
    return b"".join(map(_part, parts))


def point_id(machine: bytes, native: bytes) -> bytes:
    """The point id of section 3, from a canonical machine key and a native point id."""
    return hashlib.sha256(_part(b"ferry v1 point id") + _part(machine) + _part(native)).digest()


def parse_json(data: bytes, file: str, offset: int = 0) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Damage(file, offset, f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Damage(file, offset, "not a JSON object")
    return value


class Members:
    """Typed access to the members of a JSON object; a wrong or missing one is damage."""

    def __init__(self, value: Any, file: str) -> None:
        if not isinstance(value, dict):
            raise Damage(file, None, f"a JSON object expected, not {value!r:.80}")
        self.value, self.file = value, file

    def get(self, name: str, kind: type, default: Any = None) -> Any:
        """The member `name`; `default` if it is absent or null and a default is given."""
        value = self.value.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or not 0 <= value < 1 << 64)):
            raise Damage(self.file, None, f"member {name!r} is missing or wrong: {value!r:.80}")
        return value

    def hex(self, name: str, size: int) -> bytes:
        """The member `name`, lower-case hex of `size` bytes."""
        text = self.get(name, str)
        if not re.fullmatch("[0-9a-f]{%d}" % (2 * size), text):
            raise Damage(self.file, None, f"member {name!r} is not {size} bytes in hex: {text!r:.80}")
        return bytes.fromhex(text)

    def stamp(self, name: str) -> str:
        """The member `name`, a time, as `time_stamp` writes it."""
        try:
            return time_stamp(self.get(name, str))
        except ValueError as error:
            raise Damage(self.file, None, f"member {name!r}: {error}") from None

    def name(self, name: str) -> bytes:
        """The bytes of the encoded name in member `name`; empty if absent."""
        try:
            return name_decode(self.get(name, str, ""))
        except ValueError as error:
            raise Damage(self.file, None, f"member {name!r}: {error}") from None

    def plain(self, name: str) -> bytes:
        """The UTF-8 bytes of the member `name`, which is not name-encoded; empty if absent."""
        try:
            return self.get(name, str, "").encode("utf-8")
        except ValueError as error:
            raise Damage(self.file, None, f"member {name!r}: {error}") from None


def check_prelude(data: bytes, magic: bytes, file: str) -> None:
    """The prelude of section 1. Called before the checksum is looked at: a later version may make that differently."""
    found, version, required, _optional = struct.unpack_from("<8sIII", data)
    if found != magic:
        raise Damage(file, 0, f"magic {found!r} instead of {magic!r}")
    if version != 1:
        raise Unsupported(file, 8, f"version {version}")
    if required & ~(1 if magic in (b"FerryPnt", b"FerryPak") else 0):
        raise Unsupported(file, 12, f"unknown required features {required:#x}")


def check_zero(data: bytes, start: int, end: int, file: str, what: str = "reserved bytes", base: int = 0) -> None:
    """Bytes start to end must be zero."""
    if any(data[start:end]):
        raise Damage(file, base + start, f"{what} not zero")


# --- the log and its state (section 4) -------------------------------------------------------------------------------

# members whose items this program follows; it has no use for the others
STATE = ("domains", "packs", "index", "points")
# removing member: the member it takes items from
REMOVALS = {"deleted": "packs", "indexRemoved": "index", "pointsRemoved": "points"}


class State:
    """What the log entries applied so far say: for each member of STATE the live items by id."""

    def __init__(self, repository: str) -> None:
        self.items: dict[str, dict[str, dict[str, Any]]] = {member: {} for member in STATE}
        self.items["domains"][repository] = {"id": repository, "sealed": False}
        self.locked = ""  # until when everything is locked at least (section 15); it never moves back

    def apply(self, payload: dict[str, Any], file: str) -> None:
        """Apply one entry: first what it removes, then what it adds."""
        members = Members(payload, file)
        for removal, member in REMOVALS.items():
            for ident in members.get(removal, list, []):
                self.items[member].pop(str(ident), None)
        for member in STATE:
            for item in members.get(member, list, []):
                self.items[member][Members(item, file).get("id", str)] = item
        if "locked" in payload:
            self.locked = max(self.locked, members.stamp("locked"))


def read_sealed(path: Path, file: str, hashing: Hashing, magic: bytes, context: str, least: int,
                expected: bytes | None = None) -> tuple[bytes, bytes]:
    """Read a file that ends with its own checksum; returns what stands before the checksum, and the checksum."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damage(file, None, f"cannot be read: {error.strerror}") from None
    if len(data) < least + 32:
        raise Damage(file, len(data), "too short")
    check_prelude(data, magic, file)
    body, checksum = data[:-32], data[-32:]
    if hashing.u(context, body) != checksum:
        raise Damage(file, len(body), "wrong checksum")
    if expected is not None and checksum != expected:
        raise Damage(file, len(body), "another checksum than the log says")
    return body, checksum


def read_entry(path: Path, file: str, hashing: Hashing, number: int, previous: bytes) -> tuple[dict[str, Any], bytes]:
    """Read a log entry; returns its payload and its checksum."""
    body, checksum = read_sealed(path, file, hashing, b"FerryLog", "ferry v1 log entry", 100)
    generation, n, before, length = struct.unpack_from("<IQ32sI", body, 20)
    if n != number:
        raise Damage(file, 24, f"number {n} in the file of number {number}")
    if before != previous:
        raise Damage(file, 32, f"the chain is broken: not the checksum of entry {number - 1}")
    if 68 + length + 32 != len(body):
        raise Damage(file, 64, "payload length does not fit the file")
    payload = parse_json(body[68:-32], file, 68)
    if not check_mac(hashing, "ferry v1 log", generation, body, file, 20) and not KEYLESS.issuperset(payload):
        raise Damage(file, 20, f"forged: no MAC, and more than a writer without the key may say: {', '.join(payload)}")
    return payload, checksum


# --- packs (section 7) -----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Frame:
    """What a table entry says about a frame."""

    id: bytes
    offset: int
    stored: int
    plain: int
    kind: int
    codec: int
    checksum: bytes


class Pack:
    """One pack that the log names."""

    def __init__(self, root: Path, hashing: Hashing, item: dict[str, Any], log: str) -> None:
        members = Members(item, log)
        self.id, self.domain, self.root = members.hex("id", 16), members.hex("domain", 16), members.hex("root", 32)
        self.size, self.frames = members.get("size", int), members.get("frames", int)
        kind = members.get("kind", str)
        if kind not in ("data", "nodes"):
            raise Unsupported(log, None, f"pack kind {kind!r}")
        self.kind = BLOCK if kind == "data" else NODE
        self.file = f"packs/{self.id.hex()[:2]}/{self.id.hex()}"
        self.path, self.hashing = root / self.file, hashing

    def open(self) -> BinaryIO:
        """The pack's file."""
        try:
            return self.path.open("rb")
        except OSError as error:
            raise Damage(self.file, None, f"cannot be read: {error.strerror}") from None

    def table(self) -> list[Frame]:
        """The table, checked with header and trailer against the log."""
        with self.open() as handle:
            size = handle.seek(0, 2)
            if size != self.size or size < 128 or size >= 1 << 32:
                raise Damage(self.file, None, f"size {size} is not right, the log says {self.size}")
            handle.seek(0)
            header = handle.read(64)
            check_prelude(header, b"FerryPak", self.file)
            handle.seek(size - 64)
            trailer = handle.read(64)
            magic, count, reserved, offset, reserved2, root = struct.unpack("<8sIIQQ32s", trailer)
            if magic != b"FerryEnd" or reserved or reserved2:
                raise Damage(self.file, size - 64, "trailer: wrong magic or reserved bytes not zero")
            if count != self.frames or offset != size - 64 - 64 * count or offset < 64:
                raise Damage(self.file, size - 56, "trailer: number of frames or table offset is wrong")
            handle.seek(offset)
            table = handle.read(64 * count)
        if crc32c(header[:60]) != struct.unpack_from("<I", header, 60)[0]:
            raise Damage(self.file, 60, "header: wrong CRC-32C")
        if not self.hashing.u("ferry v1 pack", header + table) == root == self.root:
            raise Damage(self.file, size - 32, "table, trailer and log do not have the same pack root")
        self._check_header(header)
        frames, at = [], 64
        for i in range(count):
            entry = table[64 * i:64 * i + 64]
            ident, start, stored, plain, kind, codec, zero, checksum = struct.unpack("<32sIIIBBH16s", entry)
            frame = Frame(ident, start, stored, plain, kind, codec, checksum)
            if start != at or zero or kind != self.kind:
                raise Damage(self.file, offset + 64 * i, "table entry: wrong offset or kind, or reserved bytes not zero")
            frames.append(frame)
            at += 96 + stored
        if at != offset:
            raise Damage(self.file, at, "frames do not end where the table begins")
        return frames

    def _check_header(self, header: bytes) -> None:
        kind, algorithm, reserved, ident, domain, generation = struct.unpack_from("<BBH16s16sI", header, 20)
        if reserved or (kind, algorithm) != (self.kind, HASHES[self.hashing.name]):
            raise Damage(self.file, 20, "header: wrong kind or hash, or reserved bytes not zero")
        if ident != self.id or domain != self.domain:
            raise Damage(self.file, 24, "header: another pack id or domain than the log says")
        if (generation != 0) != bool(header[12] & 1) or (generation and self.kind == NODE):
            raise Damage(self.file, 56, "header: encrypted without a key generation, or the other way round, or nodes encrypted")

    def read_frame(self, handle: BinaryIO, offset: int) -> tuple[Frame, bytes]:
        """The frame at an offset as its own header describes it, and its stored bytes, checked by the frame checksum."""
        handle.seek(offset)
        header = handle.read(96)
        if len(header) < 96 or header[:4] != b"FRM1":
            raise Damage(self.file, offset, "no frame here")
        kind, codec, zero, plain, stored, generation, zero2, counter = struct.unpack_from("<BBHIIIIQ", header, 4)
        if not 1 <= plain <= MAX_PLAIN or stored > plain + 16:
            raise Damage(self.file, offset + 8, f"frame: lengths {plain} plain, {stored} stored")
        data = handle.read(stored)
        if self.hashing.u("ferry v1 frame", header[:80] + data)[:16] != header[80:96]:
            raise Damage(self.file, offset + 80, "frame: wrong checksum")
        if zero or zero2 or kind != self.kind:
            raise Damage(self.file, offset + 4, "frame: wrong kind, or reserved bytes not zero")
        if generation:
            if kind != BLOCK or self.hashing.ring is None or stored <= 16 or stored > plain + 16:
                raise Damage(self.file, offset + 16, "frame: encrypted where nothing can be, or without a tag")
            nonce = struct.pack("<IQ", 0, counter)
            known = struct.pack("<8sBBI32s", b"ferry v1", kind, codec, plain, header[48:80])
            data = self.hashing.ring.open(generation, header[32:48], "ferry v1 frame", nonce, data, known,
                                          f"{self.file} at {offset}")
        elif counter or any(header[32:48]) or stored > plain:
            raise Damage(self.file, offset + 24, "frame: nonce counter, salt or tag without encryption")
        return Frame(header[48:80], offset, stored, plain, kind, codec, header[80:96]), data

    def content(self, handle: BinaryIO, entry: Frame) -> bytes:
        """The plain bytes of a frame, checked by table entry, frame checksum and id."""
        frame, data = self.read_frame(handle, entry.offset)
        if frame != entry:
            raise Damage(self.file, entry.offset, "frame and table entry differ")
        if frame.codec:
            raise Unsupported(self.file, entry.offset + 5, f"codec {frame.codec}; this program knows only 0 (none)")
        if len(data) != frame.plain:
            raise Damage(self.file, entry.offset + 8, "frame: plain and stored length differ without a codec")
        context = "ferry v1 block" if frame.kind == BLOCK else NODE_CONTEXTS.get(data[0])
        if context is None or self.hashing.k(context, data) != frame.id:
            raise Damage(self.file, entry.offset + 48, "frame: the id is not that of the content")
        if frame.kind == BLOCK and data.count(0) == len(data):
            raise Damage(self.file, entry.offset, "a stored block of zeros")
        return data


# --- objects and points (sections 5 and 6) ---------------------------------------------------------------------------

@dataclass(frozen=True)
class Root:
    """A root record."""

    leaf_kind: int
    height: int
    block_size: int
    size: int
    top: bytes
    id: bytes

    @staticmethod
    def parse(value: Any, file: str, hashing: Hashing) -> "Root":
        """A root record from a point's header; it must be canonical and have its root id."""
        members = Members(value, file)
        root = Root(*(members.get(name, int) for name in ("leafKind", "height", "blockSize", "size")),
                    members.hex("top", 32), members.hex("root", 32))
        if root.leaf_kind not in (1, 2):
            raise Unsupported(file, None, f"leaf kind {root.leaf_kind}")
        if root.leaf_kind == 1:
            size = root.block_size
            least = 0 if root.size == 0 else 1
            while root.size and 1 <= size and FANOUT ** least * size < root.size:
                least += 1
            sound = 4096 <= size <= MAX_PLAIN and size & (size - 1) == 0 and root.height == least
            sound = sound and (root.size > 0 or root.top == ZERO_ID)
        else:
            sound = root.block_size == 0 and (root.height > 0) == (root.size > 0) == (root.top != ZERO_ID)
        if not sound or root.height > 8:
            raise Damage(file, None, f"a root record that is not canonical: {value}")
        record = struct.pack("<BBHIQ32s", root.leaf_kind, root.height, 0, root.block_size, root.size, root.top)
        if hashing.k("ferry v1 root", record) != root.id:
            raise Damage(file, None, "the root id is not that of the root record")
        return root


@dataclass
class Object:
    """One object of a point."""

    role: str
    name: str
    root: Root | None
    inline: bytes

    @property
    def size(self) -> int:
        """The object's size in bytes."""
        return self.root.size if self.root else len(self.inline)


@dataclass
class Point:
    """A restore point: its file, checked."""

    id: str
    created: str
    file: str
    domain: bytes
    body: dict[str, Any]
    objects: list[Object]

    @property
    def machine_name(self) -> str:
        """The machine's name, encoded."""
        return name_encode(Members(self.body["machine"], self.file).name("name"))


class Repository:
    """A repository opened for reading: description, log and live state."""

    def __init__(self, root: Path, keys: Keys | None = None) -> None:
        self.root, self.keys = root, keys
        self.places: dict[tuple[bytes, int, bytes], list[tuple[Pack, Frame]]] | None = None
        self.sound: dict[tuple[bytes, int, bytes], int] = {}
        self.problems: list[Problem] = []
        self.hashing, self.id, description = self._describe()
        self.state = State(self.id)
        self._replay(description)
        self.packs = [Pack(root, self.hashing, item, "log") for item in self.state.items["packs"].values()]

    def _describe(self) -> tuple[Hashing, str, bytes]:
        file = "repository.json"
        try:
            data = (self.root / file).read_bytes()
        except OSError as error:
            raise Damage(file, None, f"cannot be read: {error.strerror}") from None
        members = Members(parse_json(data, file), file)
        if members.get("format", str) != "ferry-repository":
            raise Damage(file, None, "not a Ferry repository")
        if members.get("version", int) != 1:
            raise Unsupported(file, None, "a version other than 1")
        encrypted, required = members.get("encrypted", bool, False), members.get("requiredFeatures", int, 0)
        if required & ~1:
            raise Unsupported(file, None, "unknown required features")
        if encrypted != (required == 1):
            raise Damage(file, None, "half of it says that the repository is encrypted")
        if encrypted and self.keys is None:
            raise Unsupported(file, None, "encrypted; give its key ring with --keys")
        if encrypted and (members.hex("keyCheck", 16), members.hex("id", 16)) != (self.keys.check(), self.keys.repository):
            raise Damage(file, None, "the key ring is not that of this repository")
        if members.get("hash", str) not in HASHES:
            raise Unsupported(file, None, f"hash {members.value['hash']!r}")
        size = members.get("blockSize", int)
        if not 4096 <= size <= MAX_PLAIN or size & (size - 1):
            raise Damage(file, None, f"block size {size}")
        hashing = Hashing(members.value["hash"])
        if encrypted:
            hashing.id_key, hashing.ring = self.keys.id_key, self.keys
        return hashing, members.hex("id", 16).hex(), data

    def _replay(self, description: bytes) -> None:
        names = sorted(p.name for p in self.root.glob("log/*") if re.fullmatch("[0-9]{12}", p.name))
        previous = bytes(32)
        for number, name in enumerate(names, 1):
            file = f"log/{name}"
            if int(name) != number:
                raise Damage(f"log/{number:012}", None, f"missing, but {file} exists")
            payload, previous = read_entry(self.root / file, file, self.hashing, number, previous)
            members = Members(payload, file)
            members.stamp("time")
            members.hex("writer", 16)
            if (number == 1) != ("repository" in payload):
                raise Damage(file, 68, "the member repository belongs in entry 1 and only there")
            if number == 1:
                named = Members(payload["repository"], file)
                if named.hex("checksum", 32) != self.hashing.u("ferry v1 repository", description):
                    raise Damage("repository.json", None, "another checksum than log entry 1 says")
                if named.hex("id", 16).hex() != self.id:
                    raise Damage(file, 68, "another repository id than repository.json says")
            self.state.apply(payload, file)
        if not names:
            raise Damage("log", None, "there is no log entry")
        for path in self.root.glob("checkpoints/*"):
            if re.fullmatch("[0-9]{12}", path.name) and path.name > names[-1]:
                self.problems.append(Damage(f"checkpoints/{path.name}", None, f"newer than the last log entry {names[-1]}: entries are lost, or rolled back"))

    # points

    def points(self) -> Iterator[Point | Problem]:
        """All live points in the order of time; a problem in place of a point that cannot be read."""
        for item in sorted(self.state.items["points"].values(), key=lambda i: (str(i.get("created")), i["id"])):
            try:
                yield self.read_point(item)
            except Problem as problem:
                yield problem

    def read_point(self, item: dict[str, Any]) -> Point:
        """Read a point's file and check it against itself and the log."""
        log = Members(item, "log")
        ident, machine, stamp = log.hex("id", 32), log.hex("machine", 16), log.stamp("created")
        file = log.get("file", str)
        if not re.fullmatch(f"points/{machine.hex()}/{re.escape(stamp)}-{ident.hex()}(-[0-9a-f]{{8}})?", file):
            raise Damage("log", None, f"point {ident.hex()} has a file of another name: {file!r}")
        data, _ = read_sealed(self.root / file, file, self.hashing, b"FerryPnt", "ferry v1 point", 80,
                              log.hex("checksum", 32))
        generation, salt, header_size, body_size = struct.unpack_from("<I16sII", data, 20)
        if 48 + header_size + body_size + 32 != len(data):
            raise Damage(file, 40, "header and body length do not fit the file")
        if not check_mac(self.hashing, "ferry v1 point", generation, data, file, 20):
            raise Damage(file, 20, "forged: a point without a MAC")
        header = Members(parse_json(data[48:48 + header_size], file, 48), file)
        body = Members(parse_json(self.body(self.hashing, data[48 + header_size:-32], data, file), file, 48 + header_size), file)
        if (header.hex("id", 32), header.hex("machine", 16), header.stamp("created")) != (ident, machine, stamp):
            raise Damage(file, 48, "the header's id, machine or time is not that of the log")
        domain = self.state.items["domains"].get(header.hex("domain", 16).hex())
        if domain is None or bool(domain.get("sealed")) != header.get("sealed", bool, False):
            raise Damage(file, 48, "the header's domain is unknown to the log, or sealed in one of them only")
        source, origin = Members(body.get("machine", dict), file), Members(body.get("origin", dict), file)
        key = machine_key(source.plain("platform"), source.name("instance"), source.name("uuid"),
                          source.name("sourceName"), source.name("nativeId"))
        if self.hashing.k("ferry v1 machine", key)[:16] != machine:
            raise Damage(file, 48 + header_size, "the machine's pseudonym is not that of its canonical key")
        if point_id(key, origin.name("nativeId")) != ident:
            raise Damage(file, 48 + header_size, "the point id is not that of machine and origin")
        roots = [Root.parse(tree, file, self.hashing) for tree in header.get("trees", list, [])]
        objects = [self._object(o, roots, file) for o in body.get("objects", list, [])]
        return Point(ident.hex(), header.get("created", str), file, header.hex("domain", 16), body.value, objects)

    @staticmethod
    def body(hashing: Hashing, body: bytes, data: bytes, file: str) -> bytes:
        """The body of a point, decrypted where it is encrypted."""
        generation, salt, header_size = struct.unpack_from("<I16sI", data, 20)
        if (generation != 0) != bool(data[12] & 1):
            raise Damage(file, 12, "encrypted without a key generation, or the other way round")
        if generation == 0:
            check_zero(salt, 0, 16, file, "salt without encryption", 24)
            return body
        ident = Members(parse_json(data[48:48 + header_size], file, 48), file).hex("id", 32)
        return hashing.ring.open(generation, salt, "ferry v1 point body", bytes(12), body, b"ferry v1" + ident, file)

    @staticmethod
    def _object(value: Any, roots: list[Root], file: str) -> Object:
        members = Members(value, file)
        role, name = members.get("role", str), name_encode(members.name("name"))
        try:
            inline = base64.b64decode(members.get("inline", str, ""), validate=True)
        except ValueError as error:
            raise Damage(file, None, f"object {name!r}: inline content is not base64: {error}") from None
        if value.get("tree") is None:
            if len(inline) > MAX_INLINE:
                raise Damage(file, None, f"object {name!r}: {len(inline)} bytes of inline content")
            return Object(role, name, None, inline)
        tree = members.get("tree", int)
        if tree >= len(roots) or value.get("inline") is not None:
            raise Damage(file, None, f"object {name!r}: tree {tree} does not exist, or there is inline content too")
        return Object(role, name, roots[tree], b"")

    # blocks and nodes

    def locate(self, domain: bytes, kind: int, ident: bytes) -> list[tuple[Pack, Frame]]:
        """The places of an id in the live packs of a domain, by the tables of the packs."""
        if self.places is None:
            self.places = {}
            for pack in self.packs:
                try:
                    frames = pack.table()
                except Problem as problem:
                    self.problems.append(problem)
                    continue
                for frame in frames:
                    self.places.setdefault((pack.domain, frame.kind, frame.id), []).append((pack, frame))
        return self.places.get((domain, kind, ident), [])

    def fetch(self, point: Point, kind: int, ident: bytes) -> bytes:
        """The content of an id, from the first place where it is sound."""
        last: Problem = Damage(point.file, None, f"{'block' if kind == BLOCK else 'node'} {ident.hex()} is in no pack")
        for pack, frame in self.locate(point.domain, kind, ident):
            try:
                with pack.open() as handle:
                    return pack.content(handle, frame)
            except Problem as problem:
                last = problem
        raise last

    def blocks(self, point: Point, root: Root) -> Iterator[tuple[int, int, bytes]]:
        """Offset, length and id of each stored block of an object, in order. Each node is checked before it is followed."""
        if root.top == ZERO_ID:
            return
        if root.leaf_kind == 1:
            yield from self._fixed(point, root, root.top, root.height - 1, 0)
        else:
            length = yield from self._stream(point, root.top, root.height - 1, 0, True, True)
            if length != root.size:
                raise Damage(point.file, None, f"a stream of {length} bytes in an object of {root.size}")

    def _fixed(self, point: Point, root: Root, ident: bytes, level: int, number: int) -> Iterator[tuple[int, int, bytes]]:
        node = self.fetch(point, NODE, ident)
        where = f"{point.file}: node {ident.hex()}"
        if len(node) < 36 or node[0] != (2 if level else 1) or node[1] != level:
            raise Damage(where, 0, f"not a node of kind 1 and level {level}")
        check_zero(node, 2, 4, where)
        present = [i for i in range(FANOUT) if node[4 + i // 8] >> i % 8 & 1]
        if not present or len(node) != 36 + 32 * len(present):
            raise Damage(where, 4, "presence does not fit the node's length, or is empty")
        span = root.block_size * FANOUT ** level  # bytes below one child
        for slot, i in enumerate(present):
            child, at = node[36 + 32 * slot:68 + 32 * slot], (FANOUT * number + i) * span
            if at >= root.size or child == ZERO_ID:
                raise Damage(where, 36 + 32 * slot, f"child {i} lies behind the end of the object or has a zero id")
            if level:
                yield from self._fixed(point, root, child, level - 1, FANOUT * number + i)
            else:
                yield at, min(root.block_size, root.size - at), child

    def _stream(self, point: Point, ident: bytes, level: int, at: int, top: bool,
                last: bool) -> Generator[tuple[int, int, bytes], None, int]:
        """Yields blocks and returns the length of everything below the node; `last`: nothing follows on its level."""
        node = self.fetch(point, NODE, ident)
        where = f"{point.file}: node {ident.hex()}"
        width, layout = (40, "<32sQ") if level else (36, "<32sI")
        if len(node) < 4 or node[0] != (4 if level else 3) or node[1] != level:
            raise Damage(where, 0, f"not a node of kind 2 and level {level}")
        count = node[2] | node[3] << 8
        if not 1 <= count <= FANOUT or len(node) != 4 + width * count:
            raise Damage(where, 2, "number of entries does not fit the node's length")
        if top and level and count == 1:
            raise Damage(where, 2, "a level above a level of one node")
        start = at
        for i in range(count):
            child, length = struct.unpack_from(layout, node, 4 + width * i)
            ends = i == FANOUT - 1 or (i >= 15 and child[31] < 2)
            if (i < count - 1 and ends) or (i == count - 1 and not ends and not last):
                raise Damage(where, 4 + width * i, "the node does not end where the rule says")
            if length == 0 or (level == 0 and length > MAX_PLAIN) or (level and child == ZERO_ID):
                raise Damage(where, 4 + width * i, "an entry with a wrong length or a zero id")
            if level:
                below = yield from self._stream(point, child, level - 1, at, False, last and i == count - 1)
                if below != length:
                    raise Damage(where, 36 + width * i, f"{below} bytes below an entry of {length}")
            elif child != ZERO_ID:
                yield at, length, child
            at += length
        return at - start

    def block(self, point: Point, length: int, ident: bytes) -> bytes:
        """The content of a block of a known length."""
        data = self.fetch(point, BLOCK, ident)
        if len(data) != length:
            raise Damage(point.file, None, f"block {ident.hex()} has {len(data)} bytes instead of {length}")
        return data


# --- index segments (section 8) --------------------------------------------------------------------------------------

def check_segment(repository: Repository, item: dict[str, Any], tables: dict[str, list[Frame]]) -> None:
    """Check a live index segment against itself, the log and the tables of the live packs it names."""
    log = Members(item, "log")
    file = f"index/{log.get('id', str)}"
    if not re.fullmatch("[0-9a-f]+", item["id"]):
        raise Damage("log", None, f"index id {item['id']!r} is not hex")
    data, _ = read_sealed(repository.root / file, file, repository.hashing, b"FerryIdx", "ferry v1 index", 64,
                          log.hex("checksum", 32))
    packs, entries, interval, filter_type, probes, reserved, filter_size = struct.unpack_from("<IQIBBHQ", data, 20)
    check_zero(data, 48, 64, file)
    if filter_type not in (0, 1):
        raise Unsupported(file, 36, f"filter type {filter_type}")
    if reserved or (filter_type == 0) != (filter_size == 0) or (filter_type == 1) != (probes > 0):
        raise Damage(file, 36, "filter fields contradict each other, or reserved bytes not zero")
    if entries and not interval:
        raise Damage(file, 32, "fence interval 0")
    fences = -(-entries // interval) if interval else 0
    at_entries = 64 + 16 * packs
    at_fences = at_entries + 48 * entries
    at_filter = at_fences + 8 * fences
    if at_filter + filter_size != len(data) or len(data) + 32 != log.get("size", int):
        raise Damage(file, None, "the parts do not fit the file's length, or the log gives another")
    ids = [data[64 + 16 * i:80 + 16 * i].hex() for i in range(packs)]
    if sorted(ids) != sorted(map(str, log.get("packs", list))) or len(set(ids)) != len(ids):
        raise Damage(file, 64, "other packs than the log says, or one twice")
    found: dict[str, set] = {ident: set() for ident in ids}
    before = (b"",)
    for i in range(entries):
        at = at_entries + 48 * i
        ident, number, offset, stored, plain = struct.unpack_from("<32sIIII", data, at)
        if number >= packs or (ident, number, offset) <= before:
            raise Damage(file, at, "unknown pack number, or entries out of order")
        before = (ident, number, offset)
        found[ids[number]].add((ident, offset, stored, plain))
        if i % interval == 0 and data[at_fences + 8 * (i // interval):][:8] != ident[:8]:
            raise Damage(file, at_fences + 8 * (i // interval), "fence and entry differ")
        start, step = struct.unpack_from("<QQ", ident, 8)
        for probe in range(probes):
            bit = (start + probe * (step | 1)) % (1 << 64) % (8 * filter_size)
            if not data[at_filter + bit // 8] >> bit % 8 & 1:
                raise Damage(file, at_filter + bit // 8, f"the filter does not know the entry at {at}")
    for ident in ids:
        if ident in tables and found[ident] != {(f.id, f.offset, f.stored, f.plain) for f in tables[ident]}:
            raise Damage(file, at_entries, f"entries of pack {ident} differ from its table")


# --- commands --------------------------------------------------------------------------------------------------------

def verify_pack(repository: Repository, pack: Pack, tables: dict[str, list[Frame]]) -> Iterator[Problem]:
    """Check every byte of a pack; note its table and the content found sound."""
    try:
        frames = pack.table()
    except Problem as problem:
        yield problem
        return
    tables[pack.id.hex()] = frames
    with pack.open() as handle:
        for frame in frames:
            try:
                repository.sound[pack.domain, frame.kind, frame.id] = len(pack.content(handle, frame))
            except Problem as problem:
                yield problem


def verify(root: Path, keys: Keys | None = None) -> list[Problem]:
    """Check everything the log names: packs, index segments, points. Returns all problems found."""
    try:
        repository = Repository(root, keys)
    except Problem as problem:
        return [problem]
    problems = list(repository.problems)
    tables: dict[str, list[Frame]] = {}
    for pack in repository.packs:
        problems.extend(verify_pack(repository, pack, tables))
    for item in repository.state.items["index"].values():
        try:
            check_segment(repository, item, tables)
        except Problem as problem:
            problems.append(problem)
    for point in repository.points():
        if isinstance(point, Problem):
            problems.append(point)
            continue
        for thing in point.objects:
            try:
                for _, length, ident in repository.blocks(point, thing.root) if thing.root else ():
                    if repository.sound.get((point.domain, BLOCK, ident)) != length:
                        repository.block(point, length, ident)
            except Problem as problem:
                problems.append(problem)
    return problems


def list_points(repository: Repository, as_json: bool) -> list[Problem]:
    """Print the live points."""
    rows: list[dict[str, Any]] = []
    problems = list(repository.problems)
    for point in repository.points():
        if isinstance(point, Problem):
            problems.append(point)
            continue
        rows.append({"id": point.id, "machine": point.machine_name, "created": point.created,
                     "zone": point.body.get("zone"), "origin": point.body.get("origin"), "hops": point.body.get("hops"),
                     "objects": [{"role": o.role, "name": o.name, "size": o.size} for o in point.objects]})
    if as_json:
        print(json.dumps(rows, indent=2))
    for row in () if as_json else rows:
        objects = "  ".join(f"{o['role']}:{o['name']}:{o['size']}" for o in row["objects"])
        print(f"{row['id']}  {row['machine']}  {row['created']}  {objects}")
    return problems


def restore(repository: Repository, prefix: str, target: Path) -> list[Problem]:
    """Write the objects of a point below a folder. An object that is damaged leaves no file."""
    chosen = [i for i in repository.state.items["points"].values() if i["id"].startswith(prefix)]
    if len(chosen) != 1:
        raise Usage(f"{len(chosen)} points begin with {prefix!r}")
    point, problems = repository.read_point(chosen[0]), []
    target.mkdir(parents=True, exist_ok=True)
    used: set[Path] = set()
    for thing in point.objects:
        extension = ".raw" if thing.role in RAW_ROLES else ".tar" if thing.role == "archive" else ""
        folder = target if extension else target / "config"  # roles not known are configuration
        folder.mkdir(exist_ok=True)
        stem, part = file_name(thing.name), folder / ".unfinished"
        path, number = folder / (stem + extension), 1
        while path in used:  # names need not be unique
            number += 1
            path = folder / f"{stem}-{number}{extension}"
        used.add(path)
        if path.exists() or path.is_symlink():
            raise Usage(f"{path} exists already; nothing is overwritten")
        out = part.open("xb")
        try:
            with out:
                out.write(thing.inline)
                for offset, length, ident in repository.blocks(point, thing.root) if thing.root else ():
                    out.seek(offset)
                    out.write(repository.block(point, length, ident))
                out.truncate(thing.size)
            part.rename(path)
            print(f"{path}  {thing.size}")
        except Problem as problem:
            problems.append(problem)
        finally:
            part.unlink(missing_ok=True)
    return repository.problems + problems


def state_of(entries: list[bytes]) -> bytes:
    """What log entries say of domains and locks: the sealed domains, the others, and until when all is locked."""
    payloads = [parse_json(entry, "entry") for entry in entries]
    state = State(payloads[0]["repository"]["id"])
    for payload in payloads:
        state.apply(payload, "entry")
    domains = state.items["domains"].values()
    text = {sealed: ",".join(sorted(d["id"] for d in domains if bool(d.get("sealed")) == sealed)) for sealed in (True, False)}
    return f"sealed={text[True]} open={text[False]} locked={state.locked}".encode()


def key_files(names: bytes) -> list[str]:
    """The key files that a list in `marks/` names (section 13)."""
    lines = names.decode("utf-8", "replace").split("\n")
    return sorted("keys/" + line for line in lines if re.fullmatch(r"(?!000000)[0-9]{6}-[0-9a-f]{32}", line))


def lock_end(seconds: int, stamp: str) -> str:
    """Until when what is needed at a time is locked (section 15), both as `time_stamp` writes them."""
    at = datetime.strptime(stamp[:15] + "+0000", "%Y%m%dT%H%M%S%z")
    until = int(at.timestamp()) + (int(stamp[16:25]) > 0) + seconds
    generation = seconds // 3
    return datetime.fromtimestamp(-(-until // generation) * generation, timezone.utc).strftime("%Y%m%dT%H%M%S.000000000Z")


# --- parity (section 7.4) --------------------------------------------------------------------------------------------

def _multiply(a: int, b: int) -> int:
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a, b = a << 1 ^ (0x11D if a & 0x80 else 0), b >> 1
    return product


def _solve(upper: list[list[int]]) -> list[list[int]]:
    """The inverse of a square matrix over GF(2^8)."""
    size = len(upper)
    rows = [row + [int(i == j) for j in range(size)] for i, row in enumerate(upper)]
    for column in range(size):
        pivot = next(r for r in range(column, size) if rows[r][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = next(x for x in range(256) if _multiply(x, rows[column][column]) == 1)
        rows[column] = [_multiply(scale, x) for x in rows[column]]
        for r in range(size):
            factor = rows[r][column]
            if r != column and factor:
                rows[r] = [x ^ _multiply(factor, y) for x, y in zip(rows[r], rows[column])]
    return [row[size:] for row in rows]


def parity_file(hashing: Hashing, ident: bytes, pack: bytes, wanted: tuple[int, int]) -> bytes:
    """The parity file of a pack in a repository that asks for so many data and parity shards."""
    data = min(wanted[0], -(-len(pack) // 4096))
    count = -(-wanted[1] * data // wanted[0])
    size = -(-(-(-len(pack) // data)) // 64) * 64
    shards = [pack[i * size:(i + 1) * size].ljust(size, b"\0") for i in range(data)]
    rows = []
    for r in range(data + count):
        row = [1]
        for _ in range(data - 1):
            row.append(_multiply(row[-1], r))
        rows.append(row)
    inverse = _solve(rows[:data])
    for row in rows[data:]:
        made = 0
        for i in range(data):
            factor = 0
            for c in range(data):
                factor ^= _multiply(row[c], inverse[c][i])
            made ^= int.from_bytes(shards[i].translate(bytes(_multiply(factor, x) for x in range(256))), "big")
        shards.append(made.to_bytes(size, "big"))
    head = b"FerryPar" + struct.pack("<III", 1, 0, 0) + ident + struct.pack("<QIHH12x", len(pack), size, data, count)
    head += b"".join(hashing.u("ferry v1 parity shard", shard)[:16] for shard in shards)
    return head + hashing.u("ferry v1 parity", head) + b"".join(shards[data:])


def opened(function: str, hashing: Hashing, ring: bytes, raw: bytes) -> bytes:
    """What an encrypted repository's frame, point or log entry holds, proven with the key ring."""
    keys = Keys(ring, "ring")
    hashing.id_key, hashing.ring = keys.id_key, keys
    if function == "openFrame":
        pack = Pack(Path(), hashing, {"id": "00" * 16, "domain": "00" * 16, "root": "00" * 32, "size": 0, "frames": 0, "kind": "data"}, "")
        frame, _ = pack.read_frame(io.BytesIO(raw), 0)
        return pack.content(io.BytesIO(raw), frame)
    context = "ferry v1 point" if function == "openPoint" else "ferry v1 log entry"
    body = raw[:-32]
    if hashing.u(context, body) != raw[-32:]:
        raise ValueError("wrong checksum")
    if not check_mac(hashing, context.removesuffix(" entry"), struct.unpack_from("<I", raw, 20)[0], body, function, 20):
        raise ValueError("no MAC")
    if function == "openEntry":
        return body[68:-32]
    header_size = struct.unpack_from("<I", raw, 40)[0]
    return Repository.body(hashing, body[48 + header_size:-32], body, function)


def vector(case: dict[str, Any]) -> bytes:
    """The output of one test vector's function."""
    function, hashing = case["function"], Hashing(case.get("hash", ""), bytes.fromhex(case.get("idKey", "")) or bytes(32))
    parts = [bytes.fromhex(p) for p in ([case["input"]] if isinstance(case["input"], str) else case["input"])]
    if function in ("U", "K", "rootId", "nodeId", "blockId", "pseudonym", "frame", "openFrame", "openPoint", "openEntry", "parity") and hashing.name not in HASHES:
        raise ValueError(f"hash {hashing.name!r}")
    match function:
        case "U": return hashing.u(case["context"], parts[0])
        case "K": return hashing.k(case["context"], parts[0])
        case "blockId": return hashing.k("ferry v1 block", parts[0])
        case "nodeId": return hashing.k(NODE_CONTEXTS[parts[0][0]], parts[0])
        case "rootId": return hashing.k("ferry v1 root", parts[0])
        case "pseudonym": return hashing.k("ferry v1 machine", parts[0])[:16]
        case "machineKey": return machine_key(*parts)
        case "pointId": return point_id(machine_key(*parts[:5]), parts[5])
        case "frame":
            kind, ident = BLOCK, hashing.k("ferry v1 block", parts[0])
            front = b"FRM1" + struct.pack("<BBHII32x", kind, 0, 0, len(parts[0]), len(parts[0])) + ident
            return front + hashing.u("ferry v1 frame", front + parts[0])[:16] + parts[0]
        case "derive": return crypto.hkdf(*parts)
        case "mac": return hmac.digest(crypto.hkdf(parts[0], b"", parts[1]), parts[2], "sha256")
        case "keyCheck": return Keys(parts[0], "ring").check()
        case "openFrame" | "openPoint" | "openEntry": return opened(function, hashing, *parts)
        case "domainsAndLock": return state_of(parts)
        case "keyList": return " ".join(key_files(parts[0])).encode()
        case "lockEnd": return lock_end(int(parts[0]), time_stamp(parts[1].decode())).encode()
        case "parity": return parity_file(hashing, parts[0], parts[1], struct.unpack("<HH", parts[2]))
        case "crc32c": return struct.pack("<I", crc32c(parts[0]))
        case "nameEncode": return name_encode(parts[0]).encode("utf-8")
        case "nameDecode": return name_decode(parts[0].decode("utf-8"))
    raise ValueError(f"function {function!r}")


def check_vectors(path: Path) -> int:
    """Check test vectors; returns the number of wrong ones."""
    cases, wrong = json.loads(path.read_bytes()), 0
    cases = cases["vectors"] if isinstance(cases, dict) else cases
    for case in cases:
        try:
            output = vector(case).hex()
        except (ValueError, KeyError, IndexError, TypeError, Problem) as error:
            output = f"{type(error).__name__}: {error}"
        if output != case.get("output"):
            wrong += 1
            print(f"WRONG {case.get('name')}: {output} instead of {case.get('output')}")
    print(f"{len(cases)} vectors, {wrong} wrong")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(description="Independent reader of Ferry repositories.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("list", "restore", "verify", "vectors"):
        command = commands.add_parser(name)
        command.add_argument("path", type=Path)
        if name != "vectors":
            command.add_argument("--keys", type=Path, metavar="FILE", help="recovery kit or key ring of an encrypted repository")
        if name == "list":
            command.add_argument("--json", action="store_true")
        if name == "restore":
            command.add_argument("point")
            command.add_argument("--to", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        keys = Keys(given.keys.read_bytes(), given.keys.name) if getattr(given, "keys", None) else None
        match given.command:
            case "list": problems = list_points(Repository(given.path, keys), given.json)
            case "restore": problems = restore(Repository(given.path, keys), given.point, given.to)
            case "verify":
                problems = verify(given.path, keys)
                print("sound" if not problems else f"{len(problems)} problems")
            case _: return 1 if check_vectors(given.path) else 0
    except Problem as problem:
        problems = [problem]
    except (Usage, OSError, OverflowError, UnicodeError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for problem in problems:
        print(f"{'DAMAGE' if isinstance(problem, Damage) else 'UNSUPPORTED'} {problem}", file=sys.stderr)
    return 1 if any(isinstance(p, Damage) for p in problems) else 3 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

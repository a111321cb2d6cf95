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
import json
import re
import struct
import sys
from dataclasses import dataclass, field
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


class Forged(Damage):
    """The checksum holds, and what only a holder of the key can make does not (section 10.5)."""


class Foreign(Damage):
    """A key ring that is not this repository's, or that somebody made who did not have its keys."""


class NoKey(Damage):
    """No key that was given opens it."""


class OlderKey(Damage):
    """A checkpoint that somebody may have made who had the key ring before a rotation."""


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
        if "ring" in value and Members(value, file).get("version", int) != 1:
            raise Unsupported(file, None, "a recovery kit of a version other than 1")
        ring = Members(value["ring"] if "ring" in value else value, file)
        if ring.get("format", str) != "ferry-key-ring":
            raise Damage(file, None, "not a key ring")
        if ring.get("version", int) != 1:
            raise Unsupported(file, None, "a key ring of a version other than 1")
        self.repository, self.id_key = ring.hex("repository", 16), ring.hex("idKey", 32)
        self.data: dict[int, bytes] = {}
        self.after: dict[int, int] = {}
        for item in ring.get("dataKeys", list):
            key = Members(item, file)
            generation = key.get("generation", int)
            if not max(self.data, default=0) < generation <= 999999:
                raise Damage(file, None, "generations of data keys out of order, or too large")
            if key.hex("key", 32) == bytes(32):
                raise Damage(file, None, f"no data key of generation {generation}")
            after = key.get("after", int, 0)
            if self.data:
                if after not in self.data:
                    raise Damage(file, None, f"the data key of generation {after} is missing")
                proof = crypto.hkdf(self.data[after], key.hex("key", 32), b"ferry v1 next data key %d" % generation)
                if proof != key.hex("proof", 32):
                    raise Foreign(file, None, f"the proof of generation {generation} does not hold")
            elif after or key.value.get("proof") is not None:
                raise Damage(file, None, "the first data key follows another")
            self.data[generation], self.after[generation] = key.hex("key", 32), after
        if not 1 <= len(self.data) <= 256:
            raise Damage(file, None, f"{len(self.data)} data keys")
        self.ciphers: dict[tuple[int, bytes, str], crypto.GCM] = {}

    def derive(self, generation: int, salt: bytes, info: str, file: str) -> bytes:
        """D(generation, salt, info)."""
        if generation not in self.data:
            raise NoKey(file, None, f"the key ring has no data key of generation {generation}")
        return crypto.hkdf(self.data[generation], salt, info.encode("ascii"))

    def follows(self, generation: int, earlier: int) -> bool:
        """Whether a generation is the earlier one, or comes after it through others."""
        while generation and generation != earlier:
            generation = self.after.get(generation, 0)
        return generation != 0

    def current(self, reached: int) -> int:
        """The current generation where the log has reached one; 0: it has no MAC."""
        current = reached or min(self.data)
        while later := [generation for generation, after in self.after.items() if after == current]:
            current = min(later)
        return current

    def believes(self, generation: int) -> bool:
        """Whether a checkpoint with a MAC of a generation is used without the entries before it (section 10.5)."""
        return generation == self.current(0) and len(set(self.after.values())) == len(self.after)

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
            raise Forged(file, None, "forged: the checksum holds, the tag does not")
        return plain


# members that an entry without a MAC may have in an encrypted repository (section 10.6)
KEYLESS = {"time", "writer", "program", "claimsWithdrawn", "pointsRemoved", "condemned", "condemnedFiles", "deleted",
           "deletedFiles", "indexRemoved", "partialsEnded", "bad", "damaged"}


def check_mac(hashing: "Hashing", info: str, generation: int, body: bytes, file: str, offset: int) -> bool:
    """Check the MAC that ends a body. Returns False if it has none although the repository is encrypted."""
    message, mac = body[:-32], body[-32:]
    if generation == 0:
        if any(mac):
            raise Forged(file, len(message), "forged: a MAC without a key")
        return hashing.ring is None
    if hashing.ring is None:
        raise Forged(file, offset, "has a MAC, and repository.json says that the repository is not encrypted")
    want = hmac.digest(hashing.ring.derive(generation, b"", info, file), message, "sha256")
    if not hmac.compare_digest(want, mac):
        raise Forged(file, len(message), "forged: the checksum holds, the MAC does not")
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
    if required & ~(1 if magic in (b"FerryPnt", b"FerryPak", b"FerryJob") else 0):
        raise Unsupported(file, 12, f"unknown required features {required:#x}")


def check_zero(data: bytes, start: int, end: int, file: str, what: str = "reserved bytes", base: int = 0) -> None:
    """Bytes start to end must be zero."""
    if any(data[start:end]):
        raise Damage(file, base + start, f"{what} not zero")


# --- the log and its state (section 4) -------------------------------------------------------------------------------

# members whose items have an id of their own, and where the id stands
BY_ID = {"domains": "id", "packs": "id", "index": "id", "points": "id", "tombstones": "id", "damaged": "point"}
# removing member: the member it takes items from
REMOVALS = {"deleted": "packs", "indexRemoved": "index", "pointsRemoved": "points", "tombstonesLifted": "tombstones",
            "damagedHealed": "damaged"}
# members whose items go by a point and something else: the member that takes them away, and what else
OF_POINTS = {"claims": ("claimsWithdrawn", "job"), "holds": ("holdsReleased", "id")}


def stated(item: dict[str, Any]) -> dict[str, Any]:
    """An item without members that say nothing: an absent one is the same as one that is false, zero or empty (section 1)."""
    return {name: value for name, value in item.items() if value}


class State:
    """What the log entries applied so far say: the live items of each member, by what they go by."""

    def __init__(self, repository: str) -> None:
        self.items: dict[str, dict[Any, dict[str, Any]]] = {member: {} for member in (*BY_ID, *OF_POINTS, "bad")}
        self.items["domains"][repository] = {"id": repository, "sealed": False}
        self.condemned: dict[str, int] = {}  # packs, and files by their paths: in which entry they were first
        self.partials: dict[str, list[dict[str, Any]]] = {}
        self.locked = ""  # until when everything is locked at least (section 15); it never moves back
        self.rotated, self.generation, self.number, self.head = 0, 0, 0, bytes(32)

    def follow(self, entry: Entry, file: str, ring: Keys | None) -> None:
        """Apply the next log entry, if it may follow (sections 4, 10.5 and 10.6)."""
        if entry.link != self.head:
            raise Damage(file, 32, f"the chain is broken: not the checksum of entry {self.number}")
        if ring and self.generation and entry.generation and not ring.follows(entry.generation, self.generation):
            raise Forged(file, 20, f"forged: a MAC of generation {entry.generation} after one of generation {self.generation}")
        if entry.keyless:
            self.check_keyless(entry.payload, file)
        self.apply(entry.payload, file, self.number + 1)
        self.head, self.generation = entry.checksum, entry.generation or self.generation

    def check_keyless(self, payload: dict[str, Any], file: str) -> None:
        """What a writer without the key may not say (section 10.6)."""
        def forged(what: str) -> Forged:
            return Forged(file, 20, f"forged: no MAC, and more than a writer without the key may say: {what}")
        if more := set(stated(payload)) - KEYLESS:
            raise forged(", ".join(sorted(more)))
        members = Members(payload, file)
        for ident in members.get("deleted", list, []):
            if ident in self.items["packs"] and ident not in self.condemned:
                raise forged(f"pack {ident} deleted, which was not condemned")
        for path in members.get("deletedFiles", list, []):
            if path not in self.condemned:
                raise forged(f"{path} deleted, which was not condemned")
        withdrawn = {(c["point"], c["job"]) for c in members.get("claimsWithdrawn", list, [])}
        removed = set(members.get("pointsRemoved", list, []))
        if left := [key for key in self.items["claims"] if key[0] in removed and key not in withdrawn]:
            raise forged(f"point {left[0][0]} removed, which {left[0][1]} claims")
        for (point, _), hold in self.items["holds"].items():
            if point in removed and ("until" not in hold or members.stamp("time") < Members(hold, file).stamp("until")):
                raise forged(f"point {point} removed, which is held")

    def apply(self, payload: dict[str, Any], file: str, number: int) -> None:
        """Apply an entry: first what it removes, then what it adds."""
        members = Members(payload, file)
        self.number = number

        def each(member: str) -> list[Any]:
            return members.get(member, list, [])
        for removal, member in REMOVALS.items():
            for ident in each(removal):
                self.items[member].pop(str(ident), None)
        removed, deleted = set(each("pointsRemoved")), set(each("deleted"))
        for member, (withdrawal, other) in OF_POINTS.items():
            for item in each(withdrawal):
                self.items[member].pop((item["point"], item[other]), None)
            self.items[member] = {key: item for key, item in self.items[member].items() if key[0] not in removed}
        for point in removed | {point["id"] for point in each("points")}:
            self.items["damaged"].pop(point, None)
        for point in each("points"):
            self.items["tombstones"].pop(point["id"], None)
        healed = {self.frame(item) for item in each("badHealed")}
        self.items["bad"] = {key: item for key, item in self.items["bad"].items() if key not in healed and key[0] not in deleted}
        for what in [*deleted, *each("deletedFiles")]:
            self.condemned.pop(what, None)
        for task in each("partialsEnded"):
            self.partials.pop(task, None)

        for member, ident in BY_ID.items():
            for item in each(member):
                self.items[member][Members(item, file).get(ident, str)] = item
        for item in each("packs"):  # only checkpoints say in which entry
            self.items["packs"][item["id"]] = {**item, "entry": item.get("entry") or number}
        for member, (_, other) in OF_POINTS.items():
            for item in each(member):
                self.items[member][item["point"], item[other]] = item
        for item in each("bad"):
            self.items["bad"][self.frame(item)] = item
        for known in each("condemnedIn"):
            for what in [*known.get("packs", []), *known.get("files", [])]:
                self.condemned.setdefault(what, known["entry"])
        for what in [*each("condemned"), *each("condemnedFiles")]:
            self.condemned.setdefault(what, number)
        for item in each("partials"):
            self.partials.setdefault(item["task"], []).append(item)
        if payload.get("locked") is not None:
            self.locked = max(self.locked, members.stamp("locked"))
        self.rotated = members.get("rotated", int, 0) or self.rotated

    @staticmethod
    def frame(item: dict[str, Any]) -> tuple[str, int, int, str]:
        """What a damaged frame goes by."""
        return item["pack"], item.get("offset", 0), item.get("length", 0), item.get("id", "00" * 32)

    def said(self) -> tuple[Any, ...]:
        """All that it says, to be compared."""
        items = {member: {key: stated(item) for key, item in of.items()} for member, of in self.items.items()}
        return items, self.condemned, self.partials, self.locked, self.rotated


def check_checkpoint(data: bytes, file: str, hashing: Hashing, state: State) -> Entry:
    """Read the checkpoint after the entry that a state ends with. It must say the same as the entries before it."""
    checkpoint = read_entry(data, file, hashing, state.number, b"FerryChk", "ferry v1 checkpoint")
    if checkpoint.keyless:
        raise Forged(file, 20, "forged: a checkpoint without a MAC")
    if checkpoint.link != state.head:
        raise Damage(file, 32, "the checkpoint of another log")
    other = State(Members(Members(checkpoint.payload, file).get("repository", dict), file).get("id", str))
    other.apply(checkpoint.payload, file, state.number)
    if other.said() != state.said():
        raise Damage(file, 68, "the checkpoint says something else than the entries before it")
    return checkpoint


def read_file(path: Path, file: str) -> bytes:
    """The bytes of a file of the repository."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Damage(file, None, f"cannot be read: {error.strerror}") from None


def check_sealed(data: bytes, file: str, hashing: Hashing, magic: bytes, context: str, least: int,
                 expected: bytes | None = None) -> tuple[bytes, bytes]:
    """Check a file that ends with its own checksum; returns what stands before the checksum, and the checksum."""
    if len(data) < least + 32:
        raise Damage(file, len(data), "too short")
    check_prelude(data, magic, file)
    body, checksum = data[:-32], data[-32:]
    if hashing.u(context, body) != checksum:
        raise Damage(file, len(body), "wrong checksum")
    if expected is not None and checksum != expected:
        raise Damage(file, len(body), "another checksum than the log says")
    return body, checksum


@dataclass
class Entry:
    """A log entry or a checkpoint, checked by itself."""

    payload: dict[str, Any]
    text: bytes
    checksum: bytes
    link: bytes
    generation: int
    keyless: bool


def read_entry(data: bytes, file: str, hashing: Hashing, number: int, magic: bytes = b"FerryLog",
               context: str = "ferry v1 log entry") -> Entry:
    """Read a log entry, or what has its layout."""
    body, checksum = check_sealed(data, file, hashing, magic, context, 100)
    generation, n, link, length = struct.unpack_from("<IQ32sI", body, 20)
    if n != number:
        raise Damage(file, 24, f"number {n} in the file of number {number}")
    if 68 + length + 32 != len(body):
        raise Damage(file, 64, "payload length does not fit the file")
    keyless = not check_mac(hashing, "ferry v1 log", generation, body, file, 20)
    return Entry(parse_json(body[68:-32], file, 68), body[68:-32], checksum, link, generation, keyless)


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
        if self.hashing.u("ferry v1 pack", header + table) != root:
            raise Damage(self.file, size - 32, "header, table and trailer do not have the same pack root")
        if root != self.root:
            raise self.not_that("another pack root than the log says", size - 32)
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

    def not_that(self, what: str, offset: int) -> Damage:
        """What is whole, and not what was looked for: where there are keys somebody made it (section 10.5)."""
        return (Forged if self.hashing.ring else Damage)(self.file, offset, what)

    def _check_header(self, header: bytes) -> None:
        kind, algorithm, reserved, ident, domain, generation = struct.unpack_from("<BBH16s16sI", header, 20)
        if reserved or (kind, algorithm) != (self.kind, HASHES[self.hashing.name]):
            raise Damage(self.file, 20, "header: wrong kind or hash, or reserved bytes not zero")
        if ident != self.id or domain != self.domain:
            raise self.not_that("header: another pack id or domain than the log says", 24)
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
        return self.decoded(frame, data)

    def decoded(self, frame: Frame, data: bytes) -> bytes:
        """The plain bytes of a frame from its stored ones, checked by its id."""
        if frame.codec:
            raise Unsupported(self.file, frame.offset + 5, f"codec {frame.codec}; this program knows only 0 (none)")
        if len(data) != frame.plain:
            raise Damage(self.file, frame.offset + 8, "frame: plain and stored length differ without a codec")
        context = "ferry v1 block" if frame.kind == BLOCK else NODE_CONTEXTS.get(data[0])
        if context is None or self.hashing.k(context, data) != frame.id:
            raise self.not_that("frame: the id is not that of the content", frame.offset + 48)
        if frame.kind == BLOCK and data.count(0) == len(data):
            raise Damage(self.file, frame.offset, "a stored block of zeros")
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


@dataclass
class PointFile:
    """A point's file, checked by itself."""

    header: Members
    body: Members
    text: bytes


def check_point(hashing: Hashing, raw: bytes, file: str, expected: bytes | None = None) -> PointFile:
    """Check a point's file by its checksum, its MAC and its own ids, and decrypt its body (section 5)."""
    data, _ = check_sealed(raw, file, hashing, b"FerryPnt", "ferry v1 point", 80, expected)
    generation, salt, header_size, body_size = struct.unpack_from("<I16sII", data, 20)
    if (generation != 0) != bool(data[12] & 1):
        raise Damage(file, 12, "encrypted without a key generation, or the other way round")
    if not check_mac(hashing, "ferry v1 point", generation, data, file, 20):
        raise Forged(file, 20, "forged: a point without a MAC")
    if 48 + header_size + body_size + 32 != len(data):
        raise Damage(file, 40, "header and body length do not fit the file")
    header, text = Members(parse_json(data[48:48 + header_size], file, 48), file), data[48 + header_size:-32]
    ident = header.hex("id", 32)
    if generation:
        text = hashing.ring.open(generation, salt, "ferry v1 point body", bytes(12), text, b"ferry v1" + ident, file)
    else:
        check_zero(salt, 0, 16, file, "salt without encryption", 24)
    body = Members(parse_json(text, file, 48 + header_size), file)
    source, origin = Members(body.get("machine", dict), file), Members(body.get("origin", dict), file)
    key = machine_key(source.plain("platform"), source.name("instance"), source.name("uuid"), source.name("sourceName"), source.name("nativeId"))
    if hashing.k("ferry v1 machine", key)[:16] != header.hex("machine", 16):
        raise Damage(file, 48 + header_size, "the machine's pseudonym is not that of its canonical key")
    if point_id(key, origin.name("nativeId")) != ident:
        raise Damage(file, 48 + header_size, "the point id is not that of machine and origin")
    return PointFile(header, body, text)


def describe(data: bytes, keys: Keys | None) -> tuple[Hashing, str]:
    """The hash functions that repository.json asks for, and the repository's id (section 3)."""
    file = "repository.json"
    members = Members(parse_json(data, file), file)
    if members.get("format", str) != "ferry-repository":
        raise Damage(file, None, "not a Ferry repository")
    if members.get("version", int) != 1:
        raise Unsupported(file, None, "a version other than 1")
    encrypted, required = members.get("encrypted", bool, False), members.get("requiredFeatures", int, 0)
    if required & ~1:
        raise Unsupported(file, None, "unknown required features")
    if encrypted != (required == 1) or encrypted != ("keyCheck" in members.value):
        raise Damage(file, None, "half of it says that the repository is encrypted")
    if encrypted and keys is None:
        raise Unsupported(file, None, "encrypted; give its key ring with --keys")
    if encrypted and (members.hex("keyCheck", 16), members.hex("id", 16)) != (keys.check(), keys.repository):
        raise Foreign(file, None, "the key ring is not that of this repository")
    if members.get("hash", str) not in HASHES:
        raise Unsupported(file, None, f"hash {members.value['hash']!r}")
    size = members.get("blockSize", int)
    if not 4096 <= size <= MAX_PLAIN or size & (size - 1):
        raise Damage(file, None, f"block size {size}")
    hashing = Hashing(members.value["hash"])
    if encrypted:
        hashing.id_key, hashing.ring = keys.id_key, keys
    return hashing, members.hex("id", 16).hex()


class Repository:
    """A repository opened for reading: description, log and live state."""

    def __init__(self, root: Path, keys: Keys | None = None) -> None:
        self.root, self.keys = root, keys
        self.places: dict[tuple[bytes, int, bytes], list[tuple[Pack, Frame]]] | None = None
        self.sound: dict[tuple[bytes, int, bytes], int] = {}
        self.problems: list[Problem] = []
        description = read_file(root / "repository.json", "repository.json")
        self.hashing, self.id = describe(description, keys)
        self.state = State(self.id)
        self._replay(description)
        self.packs = [Pack(root, self.hashing, item, "log") for item in self.state.items["packs"].values()]

    def _replay(self, description: bytes) -> None:
        names = sorted(p.name for p in self.root.glob("log/*") if re.fullmatch("[0-9]{12}", p.name))
        for number, name in enumerate(names, 1):
            file = f"log/{name}"
            if int(name) != number:
                raise Damage(f"log/{number:012}", None, f"missing, but {file} exists")
            entry = read_entry(read_file(self.root / file, file), file, self.hashing, number)
            payload = entry.payload
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
            self.state.follow(entry, file, self.keys if self.hashing.ring else None)
            self._compare_checkpoint(number)
        if not names:
            raise Damage("log", None, "there is no log entry")
        for path in self.root.glob("checkpoints/*"):
            if re.fullmatch("[0-9]{12}", path.name) and path.name > names[-1]:
                self.problems.append(Damage(f"checkpoints/{path.name}", None, f"newer than the last log entry {names[-1]}: entries are lost, or rolled back"))

    def _compare_checkpoint(self, number: int) -> None:
        file = f"checkpoints/{number:012}"
        if (self.root / file).exists():
            try:
                check_checkpoint(read_file(self.root / file, file), file, self.hashing, self.state)
            except Problem as problem:
                self.problems.append(problem)

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
        point = check_point(self.hashing, read_file(self.root / file, file), file, log.hex("checksum", 32))
        header, body = point.header, point.body
        if (header.hex("id", 32), header.hex("machine", 16), header.stamp("created")) != (ident, machine, stamp):
            raise Damage(file, 48, "the header's id, machine or time is not that of the log")
        domain = self.state.items["domains"].get(header.hex("domain", 16).hex())
        if domain is None or bool(domain.get("sealed")) != header.get("sealed", bool, False):
            raise Damage(file, 48, "the header's domain is unknown to the log, or sealed in one of them only")
        roots = [Root.parse(tree, file, self.hashing) for tree in header.get("trees", list, [])]
        objects = [self._object(o, roots, file) for o in body.get("objects", list, [])]
        return Point(ident.hex(), header.get("created", str), file, header.hex("domain", 16), body.value, objects)

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

@dataclass
class Segment:
    """An index segment: its packs, and of each entry the id, the pack, the frame's offset, its stored and its plain length."""

    packs: list[str]
    lines: list[tuple[bytes, str, int, int, int]]


def read_segment(hashing: Hashing, item: dict[str, Any], raw: bytes) -> Segment:
    """Check an index segment against itself and the log."""
    log = Members(item, "log")
    file = f"index/{log.get('id', str)}"
    if not re.fullmatch("[0-9a-f]+", item["id"]):
        raise Damage("log", None, f"index id {item['id']!r} is not hex")
    data, _ = check_sealed(raw, file, hashing, b"FerryIdx", "ferry v1 index", 64,
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
    if ids != sorted(map(str, log.get("packs", list))) or len(set(ids)) != len(ids):
        raise Damage(file, 64, "other packs than the log says, or not in ascending order")
    lines = []
    before = (b"",)
    for i in range(entries):
        at = at_entries + 48 * i
        ident, number, offset, stored, plain = struct.unpack_from("<32sIIII", data, at)
        if number >= packs or (ident, number, offset) <= before:
            raise Damage(file, at, "unknown pack number, or entries out of order")
        before = (ident, number, offset)
        lines.append((ident, ids[number], offset, stored, plain))
        if i % interval == 0 and data[at_fences + 8 * (i // interval):][:8] != ident[:8]:
            raise Damage(file, at_fences + 8 * (i // interval), "fence and entry differ")
        start, step = struct.unpack_from("<QQ", ident, 8)
        for probe in range(probes):
            bit = (start + probe * (step | 1)) % (1 << 64) % (8 * filter_size)
            if not data[at_filter + bit // 8] >> bit % 8 & 1:
                raise Damage(file, at_filter + bit // 8, f"the filter does not know the entry at {at}")
    return Segment(ids, lines)


def check_segment(repository: Repository, item: dict[str, Any], tables: dict[str, list[Frame]]) -> None:
    """Check a live index segment against the tables of the live packs it names."""
    file = f"index/{Members(item, 'log').get('id', str)}"
    segment = read_segment(repository.hashing, item, read_file(repository.root / file, file))
    found: dict[str, set] = {ident: set() for ident in segment.packs}
    for ident, pack, *place in segment.lines:
        found[pack].add((ident, *place))
    for ident in segment.packs:
        if ident in tables and found[ident] != {(f.id, f.offset, f.stored, f.plain) for f in tables[ident]}:
            raise Damage(file, None, f"entries of pack {ident} differ from its table")


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
            case _:
                import vectors  # which imports this module
                return 1 if vectors.check_vectors(given.path) else 0
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

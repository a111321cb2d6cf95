"""The functions of the test vectors in docs/format-vectors.json, as section 17 of docs/format.md says what they are. Most read a
file of one kind; what `reader.py` reads of a repository is read by its code.
"""
from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import re
import struct
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import age
import crypto
from reader import (BLOCK, HASHES, NODE_CONTEXTS, ZERO_ID, Damage, Foreign, Forged, Hashing, Keys, Members, NoKey, OlderKey, Pack, Problem,
                    Repository, State, Unsupported, check_checkpoint, check_point, check_prelude, check_sealed, check_zero, crc32c,
                    describe, machine_key, name_decode, name_encode, parse_json, point_id, read_entry, read_segment, time_stamp)

REFUSALS = ((Forged, "forged"), (Foreign, "foreign"), (Unsupported, "newer"), (OlderKey, "olderKey"), (NoKey, "key"), (Damage, "corrupt"))
KEY_FILE = r"(?!000000)[0-9]{6}-[0-9a-f]{32}"


# --- what age files hold (sections 10.2 and 10.4) --------------------------------------------------------------------

def key_files(names: bytes) -> list[str]:
    """The key files that a list in `marks/` names (section 13)."""
    return sorted("keys/" + line for line in names.decode("utf-8", "replace").split("\n") if re.fullmatch(KEY_FILE, line))


def newest_list(last: str, lists: dict[str, bytes]) -> bytes:
    """The list of key files that counts, where a listing shows those up to a name (section 13, `marks/keys-<n>`)."""
    number = max([int(name[11:]) for name in lists if name <= last], default=1)
    newest, missing = b"", 0
    while missing < 2:
        name = f"marks/keys-{number:06}"
        newest, missing = (lists[name], 0) if name in lists else (newest, missing + 1)
        number += 1
    return newest


def open_key_file(secrets: list[str], name: str, content: bytes) -> tuple[Keys, bytes]:
    """The ring in a key file, and its bytes."""
    if hashlib.sha256(content).hexdigest()[:32] != name[-32:] or len(content) > 128 << 10:
        raise Damage(name, None, "its bytes are not those that its name was made from, or too many")
    try:
        text = age.open_file(content, secrets)
    except age.WrongKey as error:
        raise NoKey(name, None, str(error)) from None
    except ValueError as error:
        raise Damage(name, None, str(error)) from None
    ring = Keys(text, name)
    if max(ring.data) != int(name[5:11]):
        raise Damage(name, None, f"it holds generation {max(ring.data)}")
    return ring, text


def find_ring(secrets: list[str], repository: bytes, check: bytes, folder: dict[str, bytes]) -> bytes:
    """The key ring of a repository with these key files, as JSON (section 10.2, "to open")."""
    found: dict[int, dict[str, Any]] = {}
    first: bytes | None = None
    for name in sorted((n for n in folder if re.fullmatch("keys/" + KEY_FILE, n)), reverse=True):
        if int(name[5:11]) in found:
            continue
        try:
            ring, text = open_key_file(secrets, name, folder[name])
        except Problem:
            continue
        if (ring.repository, ring.check()) != (repository, check):
            continue
        for item in json.loads(text)["dataKeys"]:
            if found.setdefault(item["generation"], item) != item:
                raise Forged(name, None, f"two data keys of generation {item['generation']}")
        first = first or text
    if first is None:
        raise NoKey("keys/", None, "no key file opens")
    united = json.loads(first) | {"dataKeys": [found[generation] for generation in sorted(found)]}
    return json.dumps(united, indent=2).encode() + b"\n"


def open_note(ring: Keys, name: str, note: bytes) -> bytes:
    """The note about a key file."""
    base, key = name.removeprefix("keys/"), ring.derive(int(name[5:11]), note[:16], "ferry v1 recipient", name)
    plain = crypto.GCM(key).open(bytes(12), note[16:], base.encode()) if len(note) >= 32 else None
    if plain is None:
        raise Forged(name, None, "the note's tag does not hold")
    said = Members(parse_json(plain, name), name)
    return b" ".join([said.hex("recipient", 16).hex().encode(), said.plain("publicKey"), said.plain("label"), said.stamp("added").encode()])


def open_kit(passphrase: bytes, text: bytes) -> bytes:
    """What a recovery kit says."""
    text = text.replace(b"\r\n", b"\n")
    if b"-----BEGIN AGE" in text:
        try:
            secrets = ["passphrase: " + passphrase.decode()] if passphrase else []
            secret = age.open_file(age.unarmored(text.decode()), secrets)
        except age.WrongKey as error:
            raise NoKey("kit", None, str(error)) from None
        except ValueError as error:
            raise Damage("kit", None, str(error)) from None
    else:
        found = re.search(rb"-----BEGIN FERRY RECOVERY KIT-----(.*)-----END FERRY RECOVERY KIT-----", text, re.DOTALL)
        if found is None:
            raise Damage("kit", None, "not a recovery kit")
        secret = found[1]
    kit = Members(parse_json(secret, "kit"), "kit")
    if kit.get("format", str) != "ferry-recovery-kit":
        raise Damage("kit", None, "not a recovery kit")
    if kit.get("version", int) != 1:
        raise Unsupported("kit", None, "a version other than 1")
    ring = json.dumps(kit.get("ring", dict), indent=2).encode() + b"\n"
    Keys(ring, "kit")
    return b"entries=%d checksum=%s exported=%s\n%s" % (
        kit.get("entries", int), kit.hex("checksum", 32).hex().encode(), kit.stamp("exported").encode(), ring)


# --- files of a repository -------------------------------------------------------------------------------------------

def open_entries(hashing: Hashing, entries: list[bytes]) -> tuple[State, str]:
    """The state after log entries, and the numbers of those without MAC in an encrypted repository."""
    state, keyless = State(""), []
    state.items["domains"].clear()
    for number, raw in enumerate(entries, 1):
        entry = read_entry(raw, f"log/{number:012}", hashing, number)
        state.follow(entry, f"log/{number:012}", hashing.ring)
        keyless += [str(number)] if entry.keyless else []
    return state, ",".join(keyless)


def open_checkpoint(hashing: Hashing, raw: bytes, entries: list[bytes]) -> bytes:
    """The payload of a checkpoint, which says what the entries before it say."""
    state, _ = open_entries(hashing, entries)
    checkpoint = check_checkpoint(raw, "checkpoint", hashing, state)
    if hashing.ring and not hashing.ring.believes(checkpoint.generation):
        raise OlderKey("checkpoint", 20, "its key may be one that was given up")
    return raw[68:-64]


def open_pack(hashing: Hashing, item: dict[str, Any], raw: bytes) -> bytes:
    """The contents of all frames of a pack that the log names."""
    pack = Pack(Path(), hashing, item, "log")
    pack.open = lambda: io.BytesIO(raw)  # type: ignore[method-assign]
    return b"".join(pack.content(pack.open(), frame) for frame in pack.table())


def open_block(hashing: Hashing, ident: bytes, raw: bytes) -> bytes:
    """The block with an id, from a frame."""
    pack = Pack(Path(), hashing, {"id": "00" * 16, "domain": "00" * 16, "root": "00" * 32, "size": 0, "frames": 0, "kind": "data"}, "")
    frame, data = pack.read_frame(io.BytesIO(raw), 0)
    if frame.id != ident:
        raise (Forged if hashing.ring else Damage)("frame", 48, "another frame lies here")
    return pack.decoded(frame, data)


def open_partial(hashing: Hashing, item: dict[str, Any], raw: bytes, validator: bytes) -> bytes:
    """What a part of an unfinished copy says (section 9), and whether it counts for a source with a validator."""
    log = Members(item, "log")
    file = log.get("file", str)
    body, _ = check_sealed(raw, file, hashing, b"FerryPrt", "ferry v1 partial", 32, log.hex("checksum", 32))
    length, count = struct.unpack_from("<IQ", body, 20)
    if 32 + length + 48 * count != len(body):
        raise Damage(file, 20, "header length and number of records do not fit the file")
    header = Members(parse_json(body[32:32 + length], file, 32), file)
    if hashing.ring and validator:
        validator = hashing.k("ferry v1 validator", validator)
    counts = base64.b64decode(header.get("validator", str, "")) == validator
    lines = [f"{header.hex('task', 16).hex()} {header.hex('point', 32).hex()} {header.hex('domain', 16).hex()} "
             f"blockSize={header.get('blockSize', int)} plain={str(header.get('plain', bool, False)).lower()} counts={str(counts).lower()}"]
    for at in range(32 + length, len(body), 48):
        thing, blocks, first, ident = struct.unpack_from("<IIQ32s", body, at)
        lines.append(f"{thing} {blocks} {first} {ident.hex()}")
    return "\n".join(lines).encode()


def open_job(hashing: Hashing, name: str, raw: bytes) -> bytes:
    """What a job left (section 16), as JSON."""
    body, _ = check_sealed(raw, name, hashing, b"FerryJob", "ferry v1 job", 40)
    generation, salt, text = *struct.unpack_from("<I16s", body, 20), body[40:]
    if (generation != 0) != bool(raw[12] & 1) or (generation != 0) != (hashing.ring is not None):
        raise Forged(name, 20, "encrypted where the repository is not, or the other way round")
    if generation:
        text = hashing.ring.open(generation, salt, "ferry v1 job", bytes(12), text, b"ferry v1" + hashing.ring.repository, name)
    elif any(salt):
        raise Damage(name, 24, "a salt without encryption")
    job = Members(parse_json(text, name, 40), name)
    if not re.fullmatch("jobs/" + hashing.u("ferry v1 job name", job.plain("job"))[:16].hex() + "-[0-9a-f]{16}", name):
        raise Damage(name, None, "the record of another job than its name says")
    job.stamp("time"), job.get("document", str), job.get("memory", dict)
    return text


def open_verified(hashing: Hashing, raw: bytes) -> bytes:
    """What `marks/verified` says (section 13)."""
    file = "marks/verified"
    body, _ = check_sealed(raw, file, hashing, b"FerryVfy", "ferry v1 verified", 80)
    level, began, worked, pack, machine, count = struct.unpack_from("<BxxxQQ16s16sI", body, 20)
    check_zero(body, 21, 24, file)
    check_zero(body, 76, 80, file)
    if level > 3 or count > 100000 or 80 + 24 * count != len(body):
        raise Damage(file, 20, "unknown level, or another number of records than the file has")
    lines = [f"level={level} began={began} worked={worked} pack={pack.hex()} machine={machine.hex()}"]
    lines += ["%s %d %d" % (ident.hex(), stored, blocks) for ident, stored, blocks in struct.iter_unpack("<16sII", body[80:])]
    return "\n".join(lines).encode()


def open_last_run(hashing: Hashing, raw: bytes) -> bytes:
    """What `marks/last-run` says (section 13), as JSON."""
    body = raw[:-32]
    if hashing.u("ferry v1 last run", body) != raw[-32:] or len(raw) > 64 << 10:
        raise Damage("marks/last-run", None, "wrong checksum")
    run = Members(parse_json(body, "marks/last-run"), "marks/last-run")
    run.stamp("began"), run.stamp("ended")
    for name in ("entry", "points", "newBytes", "storedBytes", "nodeBytes", "packs"):
        run.get(name, int)
    return body


def state_of(entries: list[bytes]) -> bytes:
    """What log entries say of domains and locks: the sealed domains, the others, and until when all is locked."""
    payloads = [parse_json(entry, "entry") for entry in entries]
    state = State(payloads[0]["repository"]["id"])
    for number, payload in enumerate(payloads, 1):
        state.apply(payload, "entry", number)
    domains = state.items["domains"].values()
    text = {sealed: ",".join(sorted(d["id"] for d in domains if bool(d.get("sealed")) == sealed)) for sealed in (True, False)}
    return f"sealed={text[True]} open={text[False]} locked={state.locked}".encode()


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


def _rows(data: int, count: int) -> list[list[int]]:
    """The rows by which shards follow from the data shards: those of the data shards themselves, then of the parity."""
    rows = []
    for r in range(data + count):
        row = [1]
        for _ in range(data - 1):
            row.append(_multiply(row[-1], r))
        rows.append(row)
    return _product(rows, _solve(rows[:data]))


def _product(rows: list[list[int]], by: list[list[int]]) -> list[list[int]]:
    made = []
    for row in rows:
        made.append([0] * len(by))
        for factor, other in zip(row, by):
            made[-1] = [x ^ _multiply(factor, y) for x, y in zip(made[-1], other)]
    return made


def _combined(row: list[int], shards: list[bytes]) -> bytes:
    """A row times shards."""
    made = 0
    for factor, shard in zip(row, shards):
        made ^= int.from_bytes(shard.translate(bytes(_multiply(factor, x) for x in range(256))), "big")
    return made.to_bytes(len(shards[0]), "big")


def repaired_pack(hashing: Hashing, ident: bytes, size: int, raw: bytes, pack: bytes) -> bytes:
    """A damaged pack made whole by its parity file."""
    file = f"parity/{ident.hex()}"
    if len(raw) < 96:
        raise Damage(file, len(raw), "too short")
    check_prelude(raw, b"FerryPar", file)
    named, of, length, data, count = struct.unpack_from("<16sQIHH", raw, 20)
    check_zero(raw, 52, 64, file)
    head = 64 + 16 * (data + count)
    if (named, of) != (ident, size):
        raise Damage(file, 20, "the parity of another pack")
    if not (data and count and length and length % 64 == 0 and data + count <= 256 and data * length >= size and len(raw) == head + 32 + count * length):
        raise Damage(file, 44, "numbers that do not fit the file")
    if hashing.u("ferry v1 parity", raw[:head]) != raw[head:head + 32]:
        raise Damage(file, head, "wrong checksum")
    pack = pack[:size].ljust(data * length, b"\0") if len(pack) >= size else pack[:len(pack) // length * length]
    whole = pack + bytes(data * length - len(pack)) + raw[head + 32:]
    shards = [whole[i * length:(i + 1) * length] for i in range(data + count)]
    good = [i for i, shard in enumerate(shards) if hashing.u("ferry v1 parity shard", shard)[:16] == raw[64 + 16 * i:80 + 16 * i]][:data]
    if len(good) < data:
        raise Damage(file, None, "more shards are lost than can be made again")
    rows = _rows(data, count)
    back = _solve([rows[i] for i in good])
    return b"".join(_combined(row, [shards[i] for i in good]) for row in back)[:size]


def parity_file(hashing: Hashing, ident: bytes, pack: bytes, wanted: tuple[int, int]) -> bytes:
    """The parity file of a pack in a repository that asks for so many data and parity shards."""
    data = min(wanted[0], -(-len(pack) // 4096))
    count = -(-wanted[1] * data // wanted[0])
    size = -(-(-(-len(pack) // data)) // 64) * 64
    shards = [pack[i * size:(i + 1) * size].ljust(size, b"\0") for i in range(data)]
    shards += [_combined(row, shards) for row in _rows(data, count)[data:]]
    head = b"FerryPar" + struct.pack("<III", 1, 0, 0) + ident + struct.pack("<QIHH12x", len(pack), size, data, count)
    head += b"".join(hashing.u("ferry v1 parity shard", shard)[:16] for shard in shards)
    return head + hashing.u("ferry v1 parity", head) + b"".join(shards[data:])


# --- the vectors ------------------------------------------------------------------------------------------------------

def opened(function: str, hashing: Hashing, parts: list[bytes]) -> bytes:
    """What a file says that belongs to a repository with a key ring, or without one."""
    if parts[0]:
        hashing.ring = Keys(parts[0], "ring")
        hashing.id_key = hashing.ring.id_key
    match function, parts[1:]:
        case "openDescription", [raw]: return describe(raw, hashing.ring)[0].u("ferry v1 repository", raw)
        case "openFrame", [raw]: return open_block(hashing, raw[48:80], raw)
        case "openBlock", [ident, raw]: return open_block(hashing, ident, raw)
        case "openPoint", [raw]: return check_point(hashing, raw, "point").text
        case "openEntry", [raw]: return read_entry(raw, "entry", hashing, struct.unpack_from("<Q", raw, 24)[0]).text
        case "openEntries", entries:
            state, keyless = open_entries(hashing, entries)
            return f"head={state.head.hex()} keyless={keyless}".encode()
        case "openCheckpoint", [raw, *entries]: return open_checkpoint(hashing, raw, entries)
        case "openPack", [item, raw]: return open_pack(hashing, parse_json(item, "log"), raw)
        case "openSegment", [item, raw]:
            lines = read_segment(hashing, parse_json(item, "log"), raw).lines
            return "\n".join("%s %s %d %d %d" % (ident.hex(), pack, *place) for ident, pack, *place in lines).encode()
        case "openPartial", [item, raw, validator]: return open_partial(hashing, parse_json(item, "log"), raw, validator)
        case "openJob", [name, raw]: return open_job(hashing, name.decode(), raw)
        case "openNote", [name, raw]: return open_note(hashing.ring, name.decode(), raw)
    raise ValueError(f"function {function!r} of {len(parts)} parts")


# functions of what is the same in every repository
HASHLESS = ("crc32c", "machineKey", "pointId", "nameEncode", "nameDecode", "derive", "mac", "keyCheck", "keyList", "lockEnd",
            "domainsAndLock", "openRing", "openNote", "openKit", "keyFiles")


def vector(case: dict[str, Any], shared: dict[str, str]) -> bytes:
    """The output of one test vector's function."""
    function, hashing = case["function"], Hashing(case.get("hash", ""), bytes.fromhex(case.get("idKey", "")) or bytes(32))
    parts = [bytes.fromhex(shared.get(p, p)) for p in ([case["input"]] if isinstance(case["input"], str) else case["input"])]
    if hashing.name not in HASHES and function not in HASHLESS:
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
        case "openRing":
            return find_ring(parts[0].decode().split("\n"), parts[1], parts[2], dict(zip([n.decode() for n in parts[3::2]], parts[4::2])))
        case "keyFiles":
            return " ".join(key_files(newest_list(parts[0].decode(), dict(zip([n.decode() for n in parts[1::2]], parts[2::2]))))).encode()
        case "openKit": return open_kit(*parts)
        case "openVerified": return open_verified(hashing, parts[0])
        case "openLastRun": return open_last_run(hashing, parts[0])
        case "repairPack": return repaired_pack(hashing, parts[0], struct.unpack("<Q", parts[1])[0], parts[2], parts[3])
        case "domainsAndLock": return state_of(parts)
        case "keyList": return " ".join(key_files(parts[0])).encode()
        case "lockEnd": return lock_end(int(parts[0]), time_stamp(parts[1].decode())).encode()
        case "parity": return parity_file(hashing, parts[0], parts[1], struct.unpack("<HH", parts[2]))
        case "crc32c": return struct.pack("<I", crc32c(parts[0]))
        case "nameEncode": return name_encode(parts[0]).encode("utf-8")
        case "nameDecode": return name_decode(parts[0].decode("utf-8"))
    return opened(function, hashing, parts)


def outcome(case: dict[str, Any], shared: dict[str, str]) -> tuple[str, str]:
    """A vector's output in hex, and why its input is refused; one of them is empty."""
    try:
        return vector(case, shared).hex(), ""
    except Problem as problem:
        return "", next((name for kind, name in REFUSALS if isinstance(problem, kind)), str(problem))


def check_vectors(path: Path) -> int:
    """Check test vectors; returns the number of wrong ones."""
    cases, wrong = json.loads(path.read_bytes()), 0
    shared, cases = cases["parts"], cases["vectors"]
    for case in cases:
        want = shared.get(case["output"], case["output"]), case.get("refused", "")
        try:
            found = outcome(case, shared)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error) as error:
            found = "", f"{type(error).__name__}: {error}"
        if found != want:
            wrong += 1
            print(f"WRONG {case.get('name')}: {found} instead of {want}")
    print(f"{len(cases)} vectors, {wrong} wrong")
    return wrong

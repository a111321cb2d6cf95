"""Opening age files, which the key files of section 10.2 and the recovery kit are. Written from the specification of age v1
(https://age-encryption.org/v1), RFC 7748 (X25519) and RFC 8439 (ChaCha20-Poly1305) with nothing but Python; slow, and not safe
against somebody who can measure times. Of the recipients it knows those that Ferry makes: scrypt, X25519 and mlkem768x25519.
"""
from __future__ import annotations

import base64
import hashlib
import hmac
import re
import struct

import hybrid

CHUNK = 65536
CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
PRIME = 2 ** 255 - 19


class WrongKey(Exception):
    """The file is whole as far as can be said, and this secret does not open it."""


def _hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    return hmac.digest(hmac.digest(salt or bytes(32), key, "sha256"), info + b"\x01", "sha256")


def x25519(scalar: bytes, point: bytes) -> bytes:
    """The function X25519 of RFC 7748."""
    k = int.from_bytes(scalar, "little") & ~7 & (1 << 254) - 1 | 1 << 254
    x1 = int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3, swapped = 1, 0, x1, 1, 0
    for bit in range(254, -1, -1):
        set_ = k >> bit & 1
        if swapped ^ set_:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = set_
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % PRIME, b * b % PRIME, d * a % PRIME, c * b % PRIME
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % PRIME, x1 * (da - cb) ** 2 % PRIME
        x2, z2 = aa * bb % PRIME, e * (aa + 121665 * e) % PRIME
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, PRIME - 2, PRIME) % PRIME).to_bytes(32, "little")


def chacha_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """The block function of ChaCha20."""
    start = struct.unpack("<16I", b"expand 32-byte k" + key + struct.pack("<I", counter) + nonce)
    v = list(start)
    for i in range(80):
        a, b, c, d = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                      (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))[i % 8]
        for x, y, z, left in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            v[x] = v[x] + v[y] & 0xFFFFFFFF
            v[z] ^= v[x]
            v[z] = (v[z] << left | v[z] >> 32 - left) & 0xFFFFFFFF
    return struct.pack("<16I", *(x + y & 0xFFFFFFFF for x, y in zip(v, start)))


def chacha_open(key: bytes, nonce: bytes, sealed: bytes) -> bytes | None:
    """ChaCha20-Poly1305 without associated data; None if the tag does not hold."""
    text, tag = sealed[:-16], sealed[-16:]
    first = chacha_block(key, 0, nonce)
    r, s = int.from_bytes(first[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF, int.from_bytes(first[16:32], "little")
    value = 0
    authenticated = text + bytes(-len(text) % 16) + struct.pack("<QQ", 0, len(text))
    for at in range(0, len(authenticated), 16):
        value = (value + int.from_bytes(authenticated[at:at + 16] + b"\x01", "little")) * r % (2 ** 130 - 5)
    if not hmac.compare_digest(((value + s) % 2 ** 128).to_bytes(16, "little"), tag):
        return None
    stream = b"".join(chacha_block(key, 1 + i, nonce) for i in range(-(-len(text) // 64)))
    return bytes(a ^ b for a, b in zip(text, stream))


def _secret(identity: str) -> bytes:
    """The 32 bytes of an AGE-SECRET-KEY-1… or AGE-SECRET-KEY-PQ-1…, which are Bech32."""
    text = identity.lower()
    human, _, data = text.rpartition("1")
    values = [CHARSET.index(c) for c in data]
    check = 1
    for value in [*(ord(c) >> 5 for c in human), 0, *(ord(c) & 31 for c in human), *values]:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    bits = "".join(f"{value:05b}" for value in values[:-6])
    if check != 1 or human not in ("age-secret-key-", "age-secret-key-pq-") or len(bits) // 8 != 32:
        raise ValueError("not an identity of age")
    return int(bits[:256], 2).to_bytes(32, "big")


def _unpadded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _file_key(arguments: list[str], body: bytes, secret: str, most_work: int) -> bytes | None:
    """The file's key from a stanza, or None if it is not for this secret."""
    if arguments[0] == "scrypt" and secret.startswith("passphrase: ") and len(arguments) == 3:
        if not re.fullmatch("[1-9][0-9]*", arguments[2]) or int(arguments[2]) > most_work:
            return None
        wrapping = hashlib.scrypt(secret.removeprefix("passphrase: ").encode(), salt=b"age-encryption.org/v1/scrypt" + _unpadded(arguments[1]),
                                  n=1 << int(arguments[2]), r=8, p=1, maxmem=(1 << 31) - 1, dklen=32)
    elif arguments[0] == "X25519" and secret.startswith("AGE-SECRET-KEY-1") and len(arguments) == 2:
        own, share = _secret(secret), _unpadded(arguments[1])
        wrapping = _hkdf(x25519(own, share), share + x25519(own, b"\x09".ljust(32, b"\0")), b"age-encryption.org/v1/X25519")
    elif arguments[0] == "mlkem768x25519" and secret.startswith("AGE-SECRET-KEY-PQ-1") and len(arguments) == 2:
        share = _unpadded(arguments[1])
        return chacha_open(*hybrid.wrapping(_secret(secret), share, x25519), body) if len(share) == 1120 else None
    else:
        return None
    return chacha_open(wrapping, bytes(12), body)


def stanzas(file: bytes) -> tuple[list[tuple[list[str], bytes]], bytes, bytes, bytes]:
    """The recipients of a file, its header up to the MAC, the MAC, and what is encrypted."""
    match = re.match(rb"(age-encryption\.org/v1\n((?:-> [!-~]+(?: [!-~]+)*\n(?:[A-Za-z0-9+/]{64}\n)*[A-Za-z0-9+/]{0,63}\n)+)---) ([A-Za-z0-9+/]{43})\n", file)
    if match is None:
        raise ValueError("not an age file")
    found = []
    for text in match[2].decode().split("-> ")[1:]:
        arguments, _, body = text.partition("\n")
        found.append((arguments.split(" "), _unpadded(body.replace("\n", ""))))
    return found, match[1], _unpadded(match[3].decode()), file[match.end():]


def open_file(file: bytes, secrets: list[str], most_work: int = 20) -> bytes:
    """What a file with one recipient holds; a secret is an identity, or `passphrase: ` and one."""
    found, header, mac, rest = stanzas(file)
    if len(found) != 1:
        raise WrongKey("not one recipient")
    for secret in secrets:
        key = _file_key(*found[0], secret, most_work)
        if key is None:
            continue
        if hmac.digest(_hkdf(key, b"", b"header"), header, "sha256") != mac:
            raise ValueError("the header's MAC does not hold")
        payload, plain, at, number = _hkdf(key, rest[:16], b"payload"), b"", 16, 0
        while True:
            sealed = rest[at:at + CHUNK + 16]
            at, last = at + CHUNK + 16, at + CHUNK + 16 >= len(rest)
            chunk = chacha_open(payload, number.to_bytes(11, "big") + bytes([last]), sealed)
            if chunk is None or (number and not chunk):
                raise ValueError("damaged")
            plain, number = plain + chunk, number + 1
            if last:
                return plain
    raise WrongKey("no secret opens it")


def unarmored(text: str) -> bytes:
    """The file in an armored one."""
    match = re.search(r"-----BEGIN AGE ENCRYPTED FILE-----\n([A-Za-z0-9+/=\n]*)-----END AGE ENCRYPTED FILE-----", text)
    if match is None:
        raise ValueError("not an armored age file")
    return base64.b64decode(match[1].replace("\n", ""), validate=True)

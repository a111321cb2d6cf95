"""AES-256-GCM and HKDF-SHA-256, for opening what docs/format.md section 10 encrypts. Written from FIPS 197, NIST SP 800-38D
and RFC 5869 with nothing but Python; slow, and not safe against somebody who can measure times.
"""
from __future__ import annotations

import hmac
import struct


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    """The first 32 bytes of HKDF-SHA-256."""
    return hmac.digest(hmac.digest(salt or bytes(32), key, "sha256"), info + b"\x01", "sha256")


def _tables() -> tuple[list[int], list[list[int]]]:
    """The S-box, and for each place of a byte in a column what SubBytes and MixColumns make of it."""
    powers, logs, value = [0] * 256, [0] * 256, 1
    for i in range(255):
        powers[i], logs[value] = value, i
        value ^= value << 1 ^ (0x11B if value & 0x80 else 0)  # times 3, a generator
    box = []
    for i in range(256):
        inverse = powers[-logs[i] % 255] if i else 0
        mixed = 0x63
        for shift in range(5):
            mixed ^= inverse << shift | inverse >> 8 - shift
        box.append(mixed & 0xFF)
    first = []
    for byte in box:
        double = byte << 1 ^ (0x11B if byte & 0x80 else 0)
        first.append(double << 24 | byte << 16 | byte << 8 | double ^ byte)
    return box, [[word >> 8 * place | word << 32 - 8 * place & 0xFFFFFFFF for word in first] for place in range(4)]


BOX, MIX = _tables()


class AES256:
    """The AES block cipher with a key of 32 bytes, encrypting only."""

    def __init__(self, key: bytes) -> None:
        words = list(struct.unpack(">8I", key))
        factor = 1
        for i in range(8, 60):
            word = words[-1]
            if i % 8 == 0:
                word = (word << 8 | word >> 24) & 0xFFFFFFFF
            if i % 4 == 0:
                word = BOX[word >> 24] << 24 | BOX[word >> 16 & 255] << 16 | BOX[word >> 8 & 255] << 8 | BOX[word & 255]
            if i % 8 == 0:
                word ^= factor << 24
                factor <<= 1
            words.append(words[-8] ^ word)
        self.words = words

    def encrypt(self, block: bytes) -> bytes:
        """One block of 16 bytes."""
        k, (m0, m1, m2, m3) = self.words, MIX
        a, b, c, d = (x ^ y for x, y in zip(struct.unpack(">4I", block), k))
        for i in range(4, 56, 4):
            a, b, c, d = (
                m0[a >> 24] ^ m1[b >> 16 & 255] ^ m2[c >> 8 & 255] ^ m3[d & 255] ^ k[i],
                m0[b >> 24] ^ m1[c >> 16 & 255] ^ m2[d >> 8 & 255] ^ m3[a & 255] ^ k[i + 1],
                m0[c >> 24] ^ m1[d >> 16 & 255] ^ m2[a >> 8 & 255] ^ m3[b & 255] ^ k[i + 2],
                m0[d >> 24] ^ m1[a >> 16 & 255] ^ m2[b >> 8 & 255] ^ m3[c & 255] ^ k[i + 3])
        last = []
        for i, (w, x, y, z) in enumerate(((a, b, c, d), (b, c, d, a), (c, d, a, b), (d, a, b, c))):
            last.append((BOX[w >> 24] << 24 | BOX[x >> 16 & 255] << 16 | BOX[y >> 8 & 255] << 8 | BOX[z & 255]) ^ k[56 + i])
        return struct.pack(">4I", *last)


def _half(value: int) -> int:
    """A field element times x: its bits are reversed, so that is a shift to the right."""
    return value >> 1 ^ (0xE1 << 120 if value & 1 else 0)


class GCM:
    """AES-256-GCM with a key, for nonces of 12 bytes and tags of 16; opening only."""

    def __init__(self, key: bytes) -> None:
        self.cipher = AES256(key)
        powers = [int.from_bytes(self.cipher.encrypt(bytes(16)), "big")]
        for _ in range(127):
            powers.append(_half(powers[-1]))
        # products[i][b] is byte i of a factor, with the value b, times the key of the hash.
        self.products = []
        for i in range(16):
            table = [0] * 256
            for bit in range(8):
                for value in range(1 << bit, 2 << bit):
                    table[value] = table[value - (1 << bit)] ^ powers[8 * i + 7 - bit]
            self.products.append(table)

    def _hash(self, data: bytes, text: bytes) -> int:
        value = 0
        lengths = struct.pack(">QQ", 8 * len(data), 8 * len(text))
        for part in (data, text, lengths):
            for at in range(0, len(part), 16):
                value ^= int.from_bytes(part[at:at + 16].ljust(16, b"\0"), "big")
                product = 0
                for byte, table in zip(value.to_bytes(16, "big"), self.products):
                    product ^= table[byte]
                value = product
        return value

    def open(self, nonce: bytes, sealed: bytes, data: bytes) -> bytes | None:
        """The plain bytes of a cipher text and its tag with associated data; None if the tag does not hold."""
        text, tag = sealed[:-16], sealed[-16:]
        stream = [self.cipher.encrypt(nonce + struct.pack(">I", i)) for i in range(1, 2 + -(-len(text) // 16))]
        want = self._hash(data, text) ^ int.from_bytes(stream[0], "big")
        if len(tag) != 16 or not hmac.compare_digest(want.to_bytes(16, "big"), tag):
            return None
        key = b"".join(stream[1:])[:len(text)]
        return (int.from_bytes(text, "big") ^ int.from_bytes(key, "big")).to_bytes(len(text), "big")

"""The recipient mlkem768x25519 of age: ML-KEM-768 (FIPS 203) and X25519 together as MLKEM768-X25519, in HPKE (RFC 9180) with
HKDF-SHA-256 and ChaCha20-Poly1305. Opening only, and without the second encryption by which ML-KEM rejects what was tampered
with: that the file's key opens proves it here.
"""
from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

Q, K = 3329, 3
LABEL = b"age-encryption.org/mlkem768x25519"
SUITE = b"HPKE" + bytes.fromhex("647a" "0001" "0003")
ZETAS = [pow(17, int(f"{i:07b}"[::-1], 2), Q) for i in range(128)]
Poly = list[int]


def _ntt(f: Poly) -> Poly:
    f, i, length = list(f), 1, 128
    while length >= 2:
        for start in range(0, 256, 2 * length):
            for j in range(start, start + length):
                t = ZETAS[i] * f[j + length]
                f[j], f[j + length] = (f[j] + t) % Q, (f[j] - t) % Q
            i += 1
        length //= 2
    return f


def _back(f: Poly) -> Poly:
    f, i, length = list(f), 127, 2
    while length <= 128:
        for start in range(0, 256, 2 * length):
            for j in range(start, start + length):
                f[j], f[j + length] = (f[j] + f[j + length]) % Q, ZETAS[i] * (f[j + length] - f[j]) % Q
            i -= 1
        length *= 2
    return [x * 3303 % Q for x in f]


def _product(f: Poly, g: Poly) -> Poly:
    h = []
    for i in range(128):
        gamma = 17 * ZETAS[i] ** 2 % Q
        a, b, c, d = f[2 * i], f[2 * i + 1], g[2 * i], g[2 * i + 1]
        h += [(a * c + b * d * gamma) % Q, (a * d + b * c) % Q]
    return h


def _sum(*polys: Poly) -> Poly:
    return [sum(values) % Q for values in zip(*polys)]


def _sample(seed: bytes) -> Poly:
    stream, values = hashlib.shake_128(seed).digest(2048), []
    for at in range(0, len(stream) - 2, 3):
        a, b, c = stream[at:at + 3]
        values += [v for v in (a | (b & 15) << 8, b >> 4 | c << 4) if v < Q]
    return values[:256]


def _noise(seed: bytes, number: int) -> Poly:
    bits = int.from_bytes(hashlib.shake_256(seed + bytes([number])).digest(128), "little")
    return [((bits >> 4 * i & 1) + (bits >> 4 * i + 1 & 1) - (bits >> 4 * i + 2 & 1) - (bits >> 4 * i + 3 & 1)) % Q for i in range(256)]


def _unpack(data: bytes, width: int) -> Poly:
    """Integers of so many bits, decompressed."""
    bits = int.from_bytes(data, "little")
    return [((bits >> width * i & (1 << width) - 1) * Q + (1 << width - 1)) >> width for i in range(256)]


def _mlkem(seed: bytes, text: bytes) -> bytes:
    """The secret that ML-KEM-768 agrees on."""
    made = hashlib.sha3_512(seed[:32] + bytes([K])).digest()
    secret, error = ([_ntt(_noise(made[32:], number)) for number in range(first, first + K)] for first in (0, K))
    public = b""
    for i in range(K):
        row = _sum(error[i], *(_product(_sample(made[:32] + bytes([j, i])), secret[j]) for j in range(K)))
        public += sum(v << 12 * n for n, v in enumerate(row)).to_bytes(384, "little")
    public += made[:32]
    u = [_ntt(_unpack(text[320 * i:320 * i + 320], 10)) for i in range(K)]
    inner = _back(_sum(*(_product(s, x) for s, x in zip(secret, u))))
    noisy = [(v - w) % Q for v, w in zip(_unpack(text[960:1088], 4), inner)]
    message = sum(((2 * x + Q // 2) // Q & 1) << n for n, x in enumerate(noisy)).to_bytes(32, "little")
    return hashlib.sha3_512(message + hashlib.sha3_256(public).digest()).digest()[:32]


def _extract(salt: bytes, label: bytes, key: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + SUITE + label + key, "sha256")


def _expand(key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return hmac.digest(key, length.to_bytes(2, "big") + b"HPKE-v1" + SUITE + label + info + b"\x01", "sha256")[:length]


def wrapping(secret: bytes, share: bytes, x25519: Callable[[bytes, bytes], bytes]) -> tuple[bytes, bytes]:
    """Key and nonce under which the file's key is wrapped."""
    expanded = hashlib.shake_256(secret).digest(96)
    own, other = expanded[64:], share[1088:]
    agreed = hashlib.sha3_256(_mlkem(expanded[:64], share[:1088]) + x25519(own, other) + other + x25519(own, b"\x09".ljust(32, b"\0"))
                              + b"\\.//^\\").digest()
    context = b"\0" + _extract(b"", b"psk_id_hash", b"") + _extract(b"", b"info_hash", LABEL)
    key = _extract(agreed, b"secret", b"")
    return _expand(key, b"key", context, 32), _expand(key, b"base_nonce", context, 12)

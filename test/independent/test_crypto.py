"""Tests of crypto.py against the vectors of NIST (GCM, test cases 13 to 16) and of RFC 5869 (HKDF, test case 1)."""
from __future__ import annotations

import unittest

import crypto


class CryptoTest(unittest.TestCase):
    def test_aes(self) -> None:
        """FIPS 197, appendix C.3."""
        cipher = crypto.AES256(bytes(range(32)))
        self.assertEqual("8ea2b7ca516745bfeafc49904b496089", cipher.encrypt(bytes.fromhex("00112233445566778899aabbccddeeff")).hex())

    def test_gcm(self) -> None:
        zeros = crypto.GCM(bytes(32))
        self.assertEqual(b"", zeros.open(bytes(12), bytes.fromhex("530f8afbc74536b9a963b4f1c4cb738b"), b""))
        sealed = bytes.fromhex("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919")
        self.assertEqual(bytes(16), zeros.open(bytes(12), sealed, b""))
        gcm = crypto.GCM(2 * bytes.fromhex("feffe9928665731c6d6a8f9467308308"))
        nonce, data = bytes.fromhex("cafebabefacedbaddecaf888"), bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
        plain = bytes.fromhex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                              "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39")
        sealed = bytes.fromhex("522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                               "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b")
        self.assertEqual(plain, gcm.open(nonce, sealed, data))
        for at in range(len(sealed)):
            changed = bytearray(sealed)
            changed[at] ^= 1
            self.assertIsNone(gcm.open(nonce, bytes(changed), data))
        self.assertIsNone(gcm.open(nonce, sealed, data + b"x"))
        self.assertIsNone(gcm.open(nonce, sealed[:8], data))

    def test_hkdf(self) -> None:
        derived = crypto.hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)))
        self.assertEqual("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf", derived.hex())


if __name__ == "__main__":
    unittest.main()

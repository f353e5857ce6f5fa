"""Sealing: AES-256-CTR with a Poly1305-AES tag, and keys out of passwords by scrypt.

Format: IV(16) | AES-256-CTR(plaintext) | tag(16), the tag over the ciphertext with the one-time
key r | AES-128_k(IV) (restic's doc/design.rst, "Keys, Encryption and MAC").
Invariant: nothing is decrypted before its tag was found right; an IV is random and never reused.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.poly1305 import Poly1305

from drctl.errors import CorruptError
from drctl.ports import Buffer
from drctl.repository.fields import mapping, text

IV_LENGTH = 16
TAG_LENGTH = 16
OVERHEAD = IV_LENGTH + TAG_LENGTH
_R_MASK = int.from_bytes(bytes.fromhex("ffffff0ffcffff0ffcffff0ffcffff0f"), "big")
_IV_BATCH = 256  # random bytes are fetched for this many IVs in one system call


@dataclass(frozen=True, slots=True)
class SealingKey:
    """The three parts of a restic key: 32 bytes to encrypt, 16 + 16 to authenticate."""

    encrypt: bytes = field(repr=False)
    mac_k: bytes = field(repr=False)
    mac_r: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> SealingKey:
        """A new random key."""
        return cls(os.urandom(32), os.urandom(16), os.urandom(16)).masked()

    @classmethod
    def from_bytes(cls, material: bytes) -> SealingKey:
        """From 64 bytes: encrypt, k, r, in scrypt's output order."""
        return cls(material[:32], material[32:48], material[48:64]).masked()

    def masked(self) -> SealingKey:
        """With r's fixed bits cleared, as Poly1305 demands and restic stores it."""
        r = int.from_bytes(self.mac_r, "big") & _R_MASK
        return SealingKey(self.encrypt, self.mac_k, r.to_bytes(16, "big"))

    def to_json(self) -> dict[str, object]:
        """The form inside a key file (before sealing)."""
        encrypt, k, r = (base64.b64encode(part).decode() for part in (self.encrypt, self.mac_k, self.mac_r))
        return {"mac": {"k": k, "r": r}, "encrypt": encrypt}

    @classmethod
    def from_json(cls, value: object, where: str) -> SealingKey:
        """CorruptError naming `where` unless all parts are there with their lengths."""
        try:
            fields = mapping(value)
            mac = mapping(fields["mac"])
            key = cls(
                *(
                    base64.b64decode(text(part), validate=True)
                    for part in (fields["encrypt"], mac["k"], mac["r"])
                )
            )
        except (KeyError, TypeError, ValueError):
            key = None
        # outside the handler: the codec's error may quote the key
        if key is None:
            raise CorruptError(f"{where}: the master key in it is malformed")
        if (len(key.encrypt), len(key.mac_k), len(key.mac_r)) != (32, 16, 16):
            raise CorruptError(f"{where}: the master key in it has wrong lengths")
        return key


@dataclass(frozen=True, slots=True)
class ScryptCost:
    """scrypt's parameters. Memory is 128 * n * r bytes."""

    n: int = 32768
    r: int = 8
    p: int = 1

    def check(self, where: str) -> None:
        """CorruptError when a hostile key file asks for absurd work (over 1 GiB, or malformed)."""
        sane = 1 < self.n <= 2**24 and self.n & (self.n - 1) == 0 and 1 <= self.r <= 64 and 1 <= self.p <= 32
        if not sane or 128 * self.n * self.r > 2**30:
            raise CorruptError(
                f"{where}: scrypt parameters N={self.n} r={self.r} p={self.p} are out of bounds"
            )


def derive_key(password: bytes, salt: bytes, cost: ScryptCost) -> SealingKey:
    """The key that seals a key file; takes tenths of a second on purpose."""
    material = Scrypt(salt=salt, length=64, n=cost.n, r=cost.r, p=cost.p).derive(password)
    return SealingKey.from_bytes(material)


class Sealer:
    """Seals and opens with one key. Not thread-safe: one per thread, its contexts are reused
    because a new cipher context per blob costs more than sealing a small one."""

    def __init__(self, key: SealingKey) -> None:
        self._stream = Cipher(algorithms.AES(key.encrypt), modes.CTR(bytes(16))).encryptor()
        self._block = Cipher(algorithms.AES(key.mac_k), modes.ECB()).encryptor()  # noqa: S305 - one block: Poly1305-AES
        self._r = key.mac_r
        self._ivs = b""
        self._next_iv = 0
        self._owner = os.getpid()

    def seal(self, plain: Buffer) -> tuple[bytes, bytes, bytes]:
        """IV, ciphertext and tag, to be stored one after the other (apart, to spare a copy)."""
        iv = self._new_iv()
        self._stream.reset_nonce(iv)
        cipher = self._stream.update(plain)
        return iv, cipher, Poly1305.generate_tag(self._r + self._block.update(iv), cipher)

    def open(self, sealed: Buffer, where: str) -> bytes:
        """The plaintext; CorruptError naming `where` unless the tag is right."""
        view = memoryview(sealed)
        if len(view) < OVERHEAD:
            raise CorruptError(f"{where}: only {len(view)} bytes, shorter than an empty sealed message")
        return self.open_parts(
            bytes(view[:IV_LENGTH]), view[IV_LENGTH:-TAG_LENGTH], bytes(view[-TAG_LENGTH:]), where
        )

    def open_parts(self, iv: bytes, cipher: Buffer, tag: bytes, where: str) -> bytes:
        """As `open`, of a message in its three parts."""
        try:
            Poly1305.verify_tag(self._r + self._block.update(iv), cipher, tag)
        except InvalidSignature as exc:
            raise CorruptError(
                f"{where}: authentication failed: the bytes are damaged or of another key"
            ) from exc
        self._stream.reset_nonce(iv)
        return self._stream.update(cipher)

    def _new_iv(self) -> bytes:
        if self._next_iv == len(self._ivs) or self._owner != os.getpid():
            # a forked copy must never hand out its parent's IVs again
            self._ivs, self._next_iv, self._owner = os.urandom(16 * _IV_BATCH), 0, os.getpid()
        self._next_iv += 16
        return self._ivs[self._next_iv - 16 : self._next_iv]

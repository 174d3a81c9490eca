"""Turn a record into numbers that can be added up: the same numbers on every machine, for ever.

    key id    64 bits of the key
    sums      two independent 64-bit numbers of (key, version, digest): what an epoch adds up, 128 bits in all
    cell      three numbers below p = 2^61 - 1 for a sketch (see `sketch.py`): id, version and digest, check

All are built from one mixing function, the finalizer of SplitMix64 (Steele, Lea, Flood, *Fast splittable pseudorandom
number generators*, OOPSLA 2014, with Stafford's constants): a bijection of 64 bits that a whole column goes through in
a few vector instructions. It is not cryptographic and need not be: it finds accidents. Tampering is found by the BLAKE2b
chain of the epochs.

With numpy (extra `yaoki[audit]`) a column of 10 000 costs about 0.1 µs a record, without it about 8; the results are equal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b, md5
from typing import Any

from yaoki.ledger.records import Batch

np: Any
try:
    import numpy as np
except ImportError:  # pragma: no cover - numpy only makes it faster
    np = None

MASK = (1 << 64) - 1
P = (1 << 61) - 1
"""A Mersenne prime. Sums are kept modulo a prime, so that dividing by a multiplicity always has one answer."""

LONG_KEY = 56
"""Keys longer than this many bytes are hashed first, so that one long key does not widen a whole column."""

SMALL_BATCH = 48
"""Below this many records plain Python is quicker than preparing columns (measured)."""

_M1, _M2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LENGTH, _VERSION, _SECOND, _PLACE = (
    0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0x8CB92BA72F3D8DD7, 0xAEF17502108EF2D9)

Sums = tuple[int, int]


def mix(value: int) -> int:
    """Scramble 64 bits, reversibly."""
    value &= MASK
    value = (value ^ value >> 30) * _M1 & MASK
    value = (value ^ value >> 27) * _M2 & MASK
    return value ^ value >> 31


def content_digest(content: bytes) -> bytes:
    """16 bytes that fingerprint a content: MD5, because sinks list it for free (S3's ETag, PostgreSQL's `md5`).

    It finds accidents. Tampering is found by the BLAKE2b commitments that the epochs chain.
    """
    return md5(content, usedforsecurity=False).digest()


def md5_of(etag: str) -> bytes:
    """The digest that an `ETag` is, or b"": others than 32 hexadecimal digits say nothing of the content."""
    text = etag.removeprefix("W/").strip('"')
    return bytes.fromhex(text) if re.fullmatch("[0-9a-fA-F]{32}", text) else b""


def _key_bytes(key: str) -> bytes:
    data = key.encode("utf-8", "surrogatepass")
    return data if len(data) <= LONG_KEY else blake2b(data, digest_size=32).digest() + b"~long~key"


def key_id(key: str) -> int:
    """64 bits that stand for a key."""
    data = _key_bytes(key)
    state = mix(len(data) + _LENGTH)
    for start in range(0, len(data), 8):
        state = mix(state ^ int.from_bytes(data[start:start + 8], "little"))
    return state


def record_sums(kid: int, version: int, digest: bytes) -> Sums:
    """The two numbers that a record adds to the sum of its epoch."""
    low, high = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
    first = mix(mix(mix(kid ^ mix(version + _VERSION)) ^ low) ^ high)
    second = mix(mix(mix(high + _SECOND) ^ low) ^ mix(version + kid))
    return first, second


def cell(kid: int, version: int, digest: bytes) -> tuple[int, int, int]:
    """The record as (id, version and 24 bits of digest, check), each below 2^61."""
    vd = version << 24 | int.from_bytes(digest[:8], "little") >> 40
    return kid & P, vd, check_of(kid & P, vd)


def check_of(ident: int, vd: int) -> int:
    """What makes a lone record recognizable: a mixture of the two other numbers."""
    return mix(mix(ident) ^ vd) & P


def places(check: int, width: int, rows: int) -> list[int]:
    """The cells that a record goes to: one in each of `rows` rows of `width` cells (a power of two, at most 2^16)."""
    bits = mix(check + _PLACE)
    return [row * width + (bits >> 16 * row & width - 1) for row in range(rows)]


class Columns:
    """The numbers of a whole batch, as numpy columns."""

    __slots__ = ("check", "first", "ident", "kid", "places", "second", "vd")

    def __init__(self, batch: Batch, width: int, rows: int) -> None:
        self.kid = vector_key_ids(batch.keys)
        versions = np.array(batch.versions, dtype=np.uint64)
        low, high = _digest_columns(batch.digests)
        self.first = _mix(_mix(_mix(self.kid ^ _mix(versions + u64(_VERSION))) ^ low) ^ high)
        self.second = _mix(_mix(_mix(high + u64(_SECOND)) ^ low) ^ _mix(versions + self.kid))
        self.ident = self.kid & u64(P)
        self.vd = versions << u64(24) | low >> u64(40)
        self.check = _mix(_mix(self.ident) ^ self.vd) & u64(P)
        bits = _mix(self.check + u64(_PLACE))
        self.places = [(bits >> u64(16 * row) & u64(width - 1)).astype(np.intp) for row in range(rows)]


def vector_key_ids(keys: list[str]) -> Any:
    """`key_id` of each key, as a column. Needs numpy."""
    data = [_key_bytes(key) for key in keys]
    lengths = np.fromiter(map(len, data), dtype=np.uint64, count=len(data))
    words = max((int(lengths.max(initial=0)) + 7) // 8, 1)
    table = np.array(data, dtype=f"S{words * 8}").view("<u8").reshape(len(data), words)
    state = _mix(lengths + u64(_LENGTH))
    for word in range(words):
        mixed = _mix(state ^ table[:, word])
        state = np.where(lengths > u64(8 * word), mixed, state)
    return state


def key_ids(keys: list[str]) -> list[int]:
    """`key_id` of each key."""
    if np is None or len(keys) < SMALL_BATCH:
        return [key_id(key) for key in keys]
    ids: list[int] = vector_key_ids(keys).tolist()
    return ids


def halves(column: Any) -> tuple[Any, Any]:
    """Numbers below 2^62 as two columns of 31 bits each, whose sums float64 holds exactly (2^22 of them). Needs numpy."""
    return (column & u64(0x7FFF_FFFF)).astype(np.float64), (column >> u64(31)).astype(np.float64)


def stretch_sums(columns: Columns, lengths: Sequence[int]) -> list[Sums]:
    """The sums of each stretch of a batch, each half modulo 2^64. Needs numpy."""
    starts = [sum(lengths[:at]) for at, length in enumerate(lengths) if length]  # an empty stretch has no first number
    sums = iter(zip(*(np.add.reduceat(column, starts).tolist() if starts else () for column in (columns.first, columns.second)),
                    strict=True))
    return [next(sums) if length else (0, 0) for length in lengths]


def cell_sums(place: Any, half: tuple[Any, Any] | None, width: int) -> list[int]:
    """The sum modulo P of the numbers that fall on each of `width` places, or how many fall there. Needs numpy."""
    if half is None:
        counts: list[int] = np.bincount(place, minlength=width).tolist()
        return counts
    low, high = (np.bincount(place, weights, width).astype(np.uint64) for weights in half)
    # high * 2^31 modulo 2^61 - 1: what sticks out above bit 61 comes back in at the bottom.
    sums: list[int] = ((low + ((high & u64((1 << 30) - 1)) << u64(31)) + (high >> u64(30))) % u64(P)).tolist()
    return sums


def u64(value: int) -> Any:
    return np.uint64(value)


def _mix(column: Any) -> Any:
    column = (column ^ column >> u64(30)) * u64(_M1)
    column = (column ^ column >> u64(27)) * u64(_M2)
    return column ^ column >> u64(31)


def _digest_columns(digests: list[bytes]) -> tuple[Any, Any]:
    joined = b"".join(digests)
    if len(joined) != 16 * len(digests):
        joined = b"".join(digest[:16].ljust(16, b"\0") for digest in digests)
    table = np.frombuffer(joined, dtype="<u8").reshape(len(digests), 2)
    return table[:, 0], table[:, 1]

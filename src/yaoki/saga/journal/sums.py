"""Checksums of what a journal keeps, so that a bit that turns over on the disk is an error and never another history.

    record: crc32(data), begun with what run, seq, kind and step come to        header: crc32(id, saga, input)

CRC-32 finds every error of up to 32 neighbouring bits, and misses one in four thousand million of the others (Koopman and Chakravarty,
DSN 2004). It is against disks, not against people: who can write the file can write a checksum. Times are for people, and are left out.
"""

from __future__ import annotations

from functools import lru_cache
from zlib import crc32

from yaoki.errors import JournalDamagedError


def record_sum(run: int, seq: int, kind: str, step: str, data: bytes) -> int:
    """Of one record: 0 to 2**32 - 1. Made for each record that is written, so names are looked up and numbers only multiplied."""
    return crc32(data, _named(kind, step) ^ ((run * 1_000_003 + seq) & 0xFFFF_FFFF))


@lru_cache(4096)
def _named(kind: str, step: str) -> int:
    return crc32(f"{kind}/{step}".encode())


def header_sum(run_id: str, saga: str, given: bytes) -> int:
    """Of what a run was started with."""
    return crc32(given, crc32(f"{saga}/{run_id}".encode()))


def damaged(run_id: str, damage: str) -> JournalDamagedError:
    """The error that names the run."""
    return JournalDamagedError(f"run {run_id!r} cannot be read: {damage}", do="restore the journal from a backup; other runs go on",
                               run_id=run_id)

"""What is counted: versions of keys, in batches of columns.

A *record* says that a version of a key exists somewhere: in a ledger, in a stream, or at rest in a sink. It carries the
fingerprint of the content where the place can tell it (a listing of an S3 bucket has MD5 sums, a list of file names has
none), and the time when it was written or arrived.

Records travel in batches of columns, a thousand or more together, because auditing them is arithmetic on whole columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from yaoki.errors import InputError

MAX_VERSION = (1 << 37) - 1
"""Versions share one 61-bit number of a sketch with 24 bits of the fingerprint: 137 thousand million versions a key."""

BEAT_PREFIX = "__beat"
"""Keys that begin so are heartbeats: they take the same path as everything else and prove that the path is open."""

Naming = tuple[str, int]
"""How people name a version: (key, version)."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One version of one key.

    Attributes:
        digest: 16 bytes that fingerprint the content, or b"" where they are not known.
        at: seconds since 1970 when it was written (at a source) or arrived (at a sink); 0 where not known.
    """

    key: str
    version: int
    digest: bytes = b""
    at: float = 0.0


class Batch:
    """Records as four columns of equal length. An empty digest means: not known here."""

    __slots__ = ("digests", "keys", "times", "versions")

    def __init__(self, keys: list[str], versions: list[int], digests: list[bytes] | None = None,
                 times: list[float] | None = None) -> None:
        self.keys = keys
        self.versions = versions
        self.digests = digests if digests is not None else [b""] * len(keys)
        self.times = times if times is not None else [0.0] * len(keys)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Batch:
        rows = list(records)
        return cls([row.key for row in rows], [row.version for row in rows], [row.digest for row in rows],
                   [row.at for row in rows])

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Record]:
        return map(Record, self.keys, self.versions, self.digests, self.times)

    def select(self, positions: Sequence[int]) -> Batch:
        """The records at these positions, in this order."""
        return Batch([self.keys[i] for i in positions], [self.versions[i] for i in positions],
                     [self.digests[i] for i in positions], [self.times[i] for i in positions])

    def without_digests(self) -> Batch:
        """The same names, for comparison with a place that knows only names."""
        return Batch(self.keys, self.versions, None, self.times)


def check_version(version: object, where: str) -> int:
    """`version` as a number that can be counted; raises `InputError` naming `where` it came from."""
    if isinstance(version, bool) or not isinstance(version, int) or not 0 <= version <= MAX_VERSION:
        raise InputError(
            f"{where}: a version must be a whole number from 0 to {MAX_VERSION}, not {version!r}",
            do="name the attribute that counts a key's changes (--version); one is added with each change")
    return version


def is_beat(key: str) -> bool:
    return key.startswith(BEAT_PREFIX)

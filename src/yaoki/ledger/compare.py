"""Name everything that differs between what should be there and what is there, in memory that does not grow with either.

Both sides are streamed. Their tallies (count, 128-bit sum, sketch of 6 KiB) are compared; only if they differ, and only
for the part that differs, more is done:

    tallies agree            done
    the sketch decodes       the few differences are known by number; one more pass over both sides finds their names
    it does not              cut by key hash into 16, stream again, one sketch for each piece that still differs
    a small piece            is held in memory and compared name by name

Never wrong: whatever was named must add up, in all 128 bits, to the difference of the two sums; if it does not (a digest
that differs only beyond the 24 bits in the sketch), that piece is compared name by name.

`Search` is pure: it says which pass it needs, is fed both sides, and decides what the next pass is. `differences` drives it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable

import msgspec

from yaoki.ledger import fingerprint as fp
from yaoki.ledger.records import Batch, Record
from yaoki.ledger.sketch import Tally

LEAF_RECORDS = 20_000
"""A piece with at most this many records on both sides is held in memory: about 5 MB."""

PIECES_A_PASS = 512
"""Sketches held at once: two sides, 25 KB each as Python numbers, so about 25 MB."""

PIECE_BATCH = 512
MOST_NAMED = 100_000
"""Differences named at most: more are not single losses but a wrong bucket, and a list of them helps nobody."""

FAN_OUT = 16
CHUNK_RECORDS = 8192
"""Pages of listings are gathered up to this size: preparing columns costs the same for 10 as for 1 000 records."""

Stream = Callable[[], AsyncIterator[Batch]]


class Difference(msgspec.Struct, frozen=True):
    """A name on which the two sides disagree.

    Attributes:
        expected, found: how many times each digest is there, sorted; () for not at all.
        expected_at, found_at: when the first was written, or arrived, where known.
    """

    key: str
    version: int
    expected: tuple[tuple[bytes, int], ...] = ()
    found: tuple[tuple[bytes, int], ...] = ()
    expected_at: float = 0.0
    found_at: float = 0.0

    @property
    def kind(self) -> str:
        """missing, extra, corrupt (other content under the same name) or duplicate."""
        if not self.found:
            return "missing"
        if not self.expected:
            return "extra"
        if {digest for digest, _ in self.found} - {digest for digest, _ in self.expected}:
            return "corrupt"
        return "duplicate" if self.copies_found > self.copies_expected else "missing"

    @property
    def copies_expected(self) -> int:
        return sum(count for _, count in self.expected)

    @property
    def copies_found(self) -> int:
        return sum(count for _, count in self.found)


class Summary(msgspec.Struct, frozen=True):
    """What a comparison found. `passes`: how often both sides were read; `truncated`: there is more than was named."""

    expected: int
    found: int
    differences: list[Difference]
    passes: int
    truncated: bool = False


class _Piece:
    """One part of the key space: keys whose id is `remainder` modulo `modulus`."""

    __slots__ = ("modulus", "remainder", "sides", "wanted")

    def __init__(self, modulus: int, remainder: int, wanted: frozenset[tuple[int, int]] | None = None) -> None:
        self.modulus = modulus
        self.remainder = remainder
        self.wanted = wanted  # None: tally; empty: hold everything; else: hold records with these (key id, version)
        self.sides: list[_Side] = [_Side(), _Side()]


class _Side:
    __slots__ = ("held", "tally", "waiting")

    def __init__(self) -> None:
        self.tally = Tally()
        self.held: list[Record] = []
        self.waiting: list[Record] = []

    def count(self, part: Batch) -> None:
        """Add to the tally, some hundred records at a time: columns are not worth preparing for a handful."""
        if len(part) >= PIECE_BATCH and not self.waiting:
            self.tally.add_batch(part)
            return
        self.waiting.extend(part)
        if len(self.waiting) >= PIECE_BATCH:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            self.tally.add_batch(Batch.of(self.waiting))
            self.waiting = []


class Search:
    """Find the differences of two multisets by passes over both. Pure.

        while search.begin_pass():
            feed every batch of both sides (search.needs_expected: is the expected side needed in this pass?)
            search.end_pass()

    Args:
        known: what the expected side adds up to, if that is known without reading it: from sealed epochs.
    """

    def __init__(self, known: Tally | None = None) -> None:
        self._known = known
        self._waiting: list[_Piece] = [_Piece(1, 0)]
        self._pieces: list[_Piece] = []
        self._by_remainder: dict[int, _Piece] = {}
        self._targets: dict[tuple[int, int], tuple[Tally, Tally]] = {}
        self._found: list[Difference] = []
        self.passes = 0
        self.counts = (0, 0)
        self.truncated = False

    def begin_pass(self) -> bool:
        """Choose the pieces of the next pass. False: everything is named."""
        if not self._waiting:
            return False
        modulus = self._waiting[0].modulus
        chosen = [piece for piece in self._waiting if piece.modulus == modulus][:PIECES_A_PASS]
        self._waiting = [piece for piece in self._waiting if piece not in chosen]
        self._pieces = chosen
        self._by_remainder = {piece.remainder: piece for piece in chosen}
        self.passes += 1
        return True

    @property
    def needs_expected(self) -> bool:
        """Must the expected side be read in this pass? Not in the first one, when its tally is known."""
        return self._known is None or self.passes > 1

    def feed_expected(self, batch: Batch) -> None:
        self._feed(0, batch)

    def feed_found(self, batch: Batch) -> None:
        self._feed(1, batch)

    def _feed(self, side: int, batch: Batch) -> None:
        whole = self._pieces[0]
        if whole.modulus == 1 and whole.wanted is None:
            whole.sides[side].tally.add_batch(batch)
            return
        ids = fp.key_ids(batch.keys)
        chosen: dict[int, list[int]] = defaultdict(list)
        for at, kid in enumerate(ids):
            piece = self._by_remainder.get(kid % whole.modulus)
            if piece is not None and (not piece.wanted or (kid & fp.P, batch.versions[at]) in piece.wanted):
                chosen[piece.remainder].append(at)
        for remainder, positions in chosen.items():
            piece = self._by_remainder[remainder]
            part = batch.select(positions)
            if piece.wanted is None:
                piece.sides[side].count(part)
            else:
                piece.sides[side].held.extend(part)

    def end_pass(self) -> None:
        """Decide about each piece: agreed, named, or to be looked at again."""
        for piece in self._pieces:
            if piece.wanted is None:
                self._decide(piece)
            else:
                self._name(piece)
        self._pieces = []
        if len(self._found) > MOST_NAMED:
            self._found = self._found[:MOST_NAMED]
            self._waiting = []
            self.truncated = True

    def _decide(self, piece: _Piece) -> None:
        for side in piece.sides:
            side.flush()
        expected, found = (side.tally for side in piece.sides)
        if piece.modulus == 1:
            expected = self._known or expected
            self.counts = (expected.count, found.count)
        if expected.agrees(found):
            return
        self._targets[piece.modulus, piece.remainder] = (expected, found)
        decoded = (expected.sketch - found.sketch).decode()
        if decoded:
            wanted = frozenset((item.ident, item.version) for item in decoded)
            self._waiting.append(_Piece(piece.modulus, piece.remainder, wanted))
        else:
            self._look_closer(piece)

    def _look_closer(self, piece: _Piece) -> None:
        expected, found = self._targets[piece.modulus, piece.remainder]
        if expected.count + found.count <= LEAF_RECORDS:
            self._waiting.append(_Piece(piece.modulus, piece.remainder, frozenset()))
        else:
            step = piece.modulus
            self._waiting.extend(_Piece(step * FAN_OUT, piece.remainder + i * step) for i in range(FAN_OUT))

    def _name(self, piece: _Piece) -> None:
        named = compare_records(piece.sides[0].held, piece.sides[1].held)
        expected, found = self._targets[piece.modulus, piece.remainder]
        if piece.wanted and not _adds_up(named, expected, found):
            # Something differs that the sketch could not see, or a side changed between the passes: look at all of it.
            self._look_closer(piece)
            return
        self._found.extend(named)

    def result(self) -> Summary:
        ordered = sorted(self._found, key=lambda each: (each.key, each.version))
        return Summary(*self.counts, ordered, self.passes, self.truncated)


def compare_records(expected: list[Record], found: list[Record]) -> list[Difference]:
    """Compare two lists held in memory, name by name."""
    sides: tuple[dict[tuple[str, int], list[Record]], ...] = (defaultdict(list), defaultdict(list))
    for side, records in zip(sides, (expected, found), strict=True):
        for record in records:
            side[record.key, record.version].append(record)
    result = []
    for name in sorted(sides[0].keys() | sides[1].keys()):
        left, right = (_counted(side.get(name, [])) for side in sides)
        if left != right:
            at = [min((record.at for record in side.get(name, [])), default=0.0) for side in sides]
            result.append(Difference(*name, left, right, *at))
    return result


def _counted(records: list[Record]) -> tuple[tuple[bytes, int], ...]:
    counts: dict[bytes, int] = defaultdict(int)
    for record in records:
        counts[record.digest] += 1
    return tuple(sorted(counts.items()))


def _adds_up(named: list[Difference], expected: Tally, found: Tally) -> bool:
    count, first, second = 0, 0, 0
    for each in named:
        kid = fp.key_id(each.key)
        for side, sign in ((each.expected, 1), (each.found, -1)):
            for digest, copies in side:
                sums = fp.record_sums(kid, each.version, digest)
                count += sign * copies
                first += sign * copies * sums[0]
                second += sign * copies * sums[1]
    return (count == expected.count - found.count
            and (first - expected.sums[0] + found.sums[0]) & fp.MASK == 0
            and (second - expected.sums[1] + found.sums[1]) & fp.MASK == 0)


async def gathered(stream: AsyncIterator[Batch], size: int = CHUNK_RECORDS) -> AsyncIterator[Batch]:
    """The same records in batches of about `size`."""
    kept = Batch([], [])
    async for batch in stream:
        kept.keys += batch.keys
        kept.versions += batch.versions
        kept.digests += batch.digests
        kept.times += batch.times
        if len(kept) >= size:
            yield kept
            kept = Batch([], [])
    if len(kept):
        yield kept


async def differences(expected: Stream, found: Stream, *, known: Tally | None = None) -> Summary:
    """Stream both sides until every difference is named.

    Args:
        expected, found: called once a pass, give batches of records in any order.
        known: the tally of the expected side, if it is known; then agreement costs one pass over the found side alone.

    A side that changes meanwhile yields differences that no longer exist or misses ones that came up; read again what is
    named before it is believed (the auditor does).
    """
    search = Search(known)
    while search.begin_pass():
        if search.needs_expected:
            async for batch in gathered(expected()):
                search.feed_expected(batch)
        async for batch in gathered(found()):
            search.feed_found(batch)
        search.end_pass()
    return search.result()

"""Six kilobytes that name what differs between two sets of any size: an additive invertible Bloom lookup table.

Each record goes to one cell in each of three rows. A cell holds four sums over the records in it:

    count · Σ id · Σ (version, 24 bits of digest) · Σ check        the last three modulo p = 2^61 - 1

Subtract the sketch of what was found from the sketch of what was expected: what is on both sides cancels, and only the
differences are left. A cell with one lone record, `c` times, shows itself: divide by c, and the check fits. Take it out
of its other cells, which uncovers more. When all cells are zero, everything is named; when no cell is left that shows
itself, decoding *has failed and knows it*. A wrong answer would need a check to fit by chance: 2^-61 a try.

Sums (not exclusive ors) make it a sketch of multisets: a record that is there four times shows as 4. Sketches add up, so
the sketches of epochs make the sketch of a day.

Source: Goodrich, Mitzenmacher, *Invertible Bloom lookup tables*, 2011; Eppstein, Goodrich, Uyeda, Varghese, *What's the
difference?*, SIGCOMM 2011.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import add

import msgspec

from yaoki.errors import InputError
from yaoki.ledger import fingerprint as fp
from yaoki.ledger.fingerprint import P
from yaoki.ledger.records import Batch, Record

WIDTH = 64
ROWS = 3
CELLS = WIDTH * ROWS
_LAYOUT = struct.Struct(f"<{CELLS}q{3 * CELLS}Q")
SIZE_BYTES = _LAYOUT.size

CHUNK = 1 << 21
"""Most records added at once: halves of 31 bits times 2^21 stay below 2^53, where float64 sums are exact."""


class Decoded(msgspec.Struct, frozen=True):
    """A record as a sketch names it.

    Attributes:
        ident: the lower 61 bits of the key's id.
        version: of the key.
        digest24: the upper 24 bits of the digest's first word.
        copies: how many more times it is on the left side; negative: on the right side.
    """

    ident: int
    version: int
    digest24: int
    copies: int


class Sketch:
    """An additive sketch of a multiset of records. Pure; not safe for use by several threads at once."""

    __slots__ = ("checks", "counts", "idents", "vds")

    def __init__(self) -> None:
        self.counts = [0] * CELLS
        self.idents = [0] * CELLS
        self.vds = [0] * CELLS
        self.checks = [0] * CELLS

    def add(self, record: Record, copies: int = 1) -> None:
        ident, vd, check = fp.cell(fp.key_id(record.key), record.version, record.digest)
        self.put(ident, vd, check, copies)

    def add_batch(self, batch: Batch) -> None:
        if fp.np is None or len(batch) < fp.SMALL_BATCH:
            for record in batch:
                self.add(record)
        else:
            self.add_columns(fp.Columns(batch, WIDTH, ROWS))

    def add_columns(self, columns: fp.Columns) -> None:
        """Add a batch of at most `CHUNK` records, prepared as columns."""
        assert len(columns.kid) <= CHUNK, "cut the batch: float64 sums would not be exact"
        halves = [fp.halves(column) for column in (columns.ident, columns.vd, columns.check)]
        for row, place in enumerate(columns.places):
            cells = slice(row * WIDTH, (row + 1) * WIDTH)
            self.counts[cells] = map(add, self.counts[cells], fp.cell_sums(place, None, WIDTH))
            for target, half in zip((self.idents, self.vds, self.checks), halves, strict=True):
                more = fp.cell_sums(place, half, WIDTH)
                target[cells] = [(a + b) % P for a, b in zip(target[cells], more, strict=True)]

    def put(self, ident: int, vd: int, check: int, copies: int) -> None:
        """Add `copies` of a record to its three cells."""
        for at in fp.places(check, WIDTH, ROWS):
            self.counts[at] += copies
            self.idents[at] = (self.idents[at] + copies * ident) % P
            self.vds[at] = (self.vds[at] + copies * vd) % P
            self.checks[at] = (self.checks[at] + copies * check) % P

    def __add__(self, other: Sketch) -> Sketch:
        return self.combined(other, 1)

    def __sub__(self, other: Sketch) -> Sketch:
        return self.combined(other, -1)

    def combined(self, other: Sketch, sign: int) -> Sketch:
        """A new sketch: this one plus `sign` times the other."""
        result = Sketch()
        result.counts = [a + sign * b for a, b in zip(self.counts, other.counts, strict=True)]
        for name in ("idents", "vds", "checks"):
            pairs = zip(getattr(self, name), getattr(other, name), strict=True)
            setattr(result, name, [(a + sign * b) % P for a, b in pairs])
        return result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def is_zero(self) -> bool:
        return not (any(self.counts) or any(self.idents) or any(self.vds) or any(self.checks))

    def decode(self) -> list[Decoded] | None:
        """Every record left in the sketch, or None when it holds too many to name (about 60 always fit).

        Works on a copy. The order of the result depends only on the content.
        """
        rest = Sketch().combined(self, 1)
        found: dict[tuple[int, int], int] = {}
        queue = [at for at in range(CELLS) if rest.counts[at]]
        # Each turn takes out one lone record. What peels at all peels in fewer turns than there are cells; without a
        # bound, a record wrongly taken for a lone one could be put in and out for ever.
        for _ in range(4 * CELLS):
            if not queue:
                break
            lone = rest.lone(queue.pop())
            if lone is None:
                continue
            ident, vd, check, copies = lone
            found[ident, vd] = found.get((ident, vd), 0) + copies
            rest.put(ident, vd, check, -copies)
            queue.extend(at for at in fp.places(check, WIDTH, ROWS) if rest.counts[at])
        if not rest.is_zero():
            return None
        return [Decoded(ident, vd >> 24, vd & 0xFFFFFF, copies)
                for (ident, vd), copies in sorted(found.items()) if copies]

    def lone(self, at: int) -> tuple[int, int, int, int] | None:
        """(id, version and digest, check, copies) of the only record in this cell, or None if there is not just one."""
        copies = self.counts[at]
        if copies % P == 0:
            return None
        share = 1 if copies == 1 else pow(copies, -1, P)
        ident, vd, check = (sums[at] * share % P for sums in (self.idents, self.vds, self.checks))
        if fp.check_of(ident, vd) % P != check or at not in fp.places(fp.check_of(ident, vd), WIDTH, ROWS):
            return None
        return ident, vd, fp.check_of(ident, vd), copies

    def to_bytes(self) -> bytes:
        return _LAYOUT.pack(*self.counts, *self.idents, *self.vds, *self.checks)

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        if len(data) != SIZE_BYTES:
            raise InputError(f"a sketch has {SIZE_BYTES} bytes, not {len(data)}",
                             do="read it again from the ledger; if it was trimmed, compare the epoch's rows instead")
        numbers = _LAYOUT.unpack(data)
        sketch = cls()
        sketch.counts = list(numbers[:CELLS])
        sketch.idents, sketch.vds, sketch.checks = (
            list(numbers[start:start + CELLS]) for start in (CELLS, 2 * CELLS, 3 * CELLS))
        return sketch


class Tally:
    """How many records, their 128-bit sum, and their sketch: all that two sides must exchange to find what differs."""

    __slots__ = ("count", "sketch", "sums")

    def __init__(self, count: int = 0, sums: fp.Sums = (0, 0), sketch: Sketch | None = None) -> None:
        self.count = count
        self.sums = sums
        self.sketch = sketch if sketch is not None else Sketch()

    def add(self, record: Record) -> None:
        self.count += 1
        self.add_sums(fp.record_sums(fp.key_id(record.key), record.version, record.digest))
        self.sketch.add(record)

    def add_batch(self, batch: Batch) -> None:
        if fp.np is None or len(batch) < fp.SMALL_BATCH:
            for record in batch:
                self.add(record)
            return
        if len(batch) > CHUNK:
            for start in range(0, len(batch), CHUNK):
                self.add_batch(batch.select(range(start, min(start + CHUNK, len(batch)))))
            return
        columns = fp.Columns(batch, WIDTH, ROWS)
        self.count += len(batch)
        # numpy sums of uint64 wrap modulo 2^64, which is the sum we want.
        self.add_sums((int(columns.first.sum(dtype=fp.np.uint64)), int(columns.second.sum(dtype=fp.np.uint64))))
        self.sketch.add_columns(columns)

    def add_sums(self, more: fp.Sums) -> None:
        """Add to the 128-bit sum, each half modulo 2^64."""
        self.sums = (self.sums[0] + more[0]) & fp.MASK, (self.sums[1] + more[1]) & fp.MASK

    def agrees(self, other: Tally) -> bool:
        """Is it the same multiset? Wrongly yes with probability 2^-128."""
        return self.count == other.count and self.sums == other.sums

    def __add__(self, other: Tally) -> Tally:
        total = Tally(self.count + other.count, self.sums, self.sketch + other.sketch)
        total.add_sums(other.sums)
        return total

    @property
    def sum128(self) -> str:
        """The sum as 32 hexadecimal digits."""
        return f"{self.sums[0]:016x}{self.sums[1]:016x}"


def tallies(batch: Batch, lengths: Sequence[int]) -> list[Tally]:
    """A tally for each stretch of the batch: the first `lengths[0]` records, the next `lengths[1]`, ...

    Preparing columns costs the same for ten as for a thousand records, so the stretches share it.
    """
    assert sum(lengths) == len(batch)
    bounds = list(pairwise(accumulate(lengths, initial=0)))
    if fp.np is None or len(batch) < fp.SMALL_BATCH or len(batch) > CHUNK:
        return [_tally(batch.select(range(start, end))) for start, end in bounds]
    columns = fp.Columns(batch, WIDTH, ROWS)
    sums = fp.stretch_sums(columns, lengths)
    made = [Tally(length, each) for length, each in zip(lengths, sums, strict=True)]
    offsets = fp.np.repeat(fp.np.arange(len(lengths)) * WIDTH, lengths)
    columns_of = {"counts": None, "idents": fp.halves(columns.ident), "vds": fp.halves(columns.vd), "checks": fp.halves(columns.check)}
    for row, place in enumerate(columns.places):
        for name, halves in columns_of.items():
            flat = fp.cell_sums(place + offsets, halves, WIDTH * len(lengths))
            for at, tally in enumerate(made):
                getattr(tally.sketch, name)[row * WIDTH:(row + 1) * WIDTH] = flat[at * WIDTH:(at + 1) * WIDTH]
    return made


def _tally(batch: Batch) -> Tally:
    tally = Tally()
    tally.add_batch(batch)
    return tally

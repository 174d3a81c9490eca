"""Epochs: dense numbers, nothing said twice, and any change to the past shows."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaoki.ledger.changes import commitment_of
from yaoki.ledger.epochs import Epoch, Row, Stretch, beat_key, partition_of, seal, verify_epoch


def rows(start: int, count: int) -> list[Row]:
    return [Row((0, n), f"A{n % 3}", n // 3, bytes([n % 256]) * 16, commitment_of(b"s" * 16, b"c%d" % n), n)
            for n in range(start, start + count)]


def chain(sizes: list[int]) -> list[tuple[Epoch, list[Row]]]:
    sealed: list[tuple[Epoch, list[Row]]] = []
    position = 1
    for size in sizes:
        last = sealed[-1][0] if sealed else None
        fresh = rows(position, size)
        sealed.append((seal(last, 0, Stretch.of(fresh), 100.0 + len(sealed)), fresh))
        position += size
    return sealed


def faults(sealed: list[tuple[Epoch, list[Row]]]) -> list[str]:
    previous = [None, *(epoch for epoch, _ in sealed)]
    return [verify_epoch(epoch, before, its) for (epoch, its), before in zip(sealed, previous, strict=False)]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_numbers_are_dense_and_empty_epochs_are_sealed_too(sizes: list[int]) -> None:
    sealed = [epoch for epoch, _ in chain(sizes)]
    assert [epoch.epoch for epoch in sealed] == list(range(len(sizes)))
    assert [epoch.rows for epoch in sealed] == sizes
    assert all(a.next_seq == b.first_seq for a, b in pairwise(sealed))
    assert faults(chain(sizes)) == [""] * len(sizes)


@pytest.mark.parametrize("field", ["count", "rows", "sum128", "sealed_at", "root", "beat", "until"])
def test_a_changed_epoch_shows(field: str) -> None:
    sealed = chain([3, 0, 4])
    epoch, its = sealed[1]
    other = {"sum128": "f" * 32, "root": "0" * 64, "until": (9, 9)}.get(field, 77)
    sealed[1] = msgspec.structs.replace(epoch, **{field: other}), its
    assert faults(sealed)[1] == "its record was changed"


def test_a_changed_removed_or_added_row_shows() -> None:
    sealed = chain([3, 2])
    epoch, its = sealed[0]
    assert faults([(epoch, its[:2])]) == ["it was sealed with 3 rows and has 2"]
    changed = [*its[:2], msgspec.structs.replace(its[2], commitment=b"x" * 32)]
    assert faults([(epoch, changed)]) == ["a row in it was changed"]
    assert "does not follow" in faults(sealed[1:])[0]


def test_beats_take_numbers_but_stay_out_of_the_sums() -> None:
    beat = Row((0, 9), beat_key(2), 41, b"b" * 16, b"b" * 32, 0.0)
    sealed = seal(None, 2, Stretch.of([*rows(1, 2), beat]), 1.0)
    assert (sealed.rows, sealed.count, sealed.beat) == (3, 2, 41)
    assert seal(sealed, 2, Stretch.of([]), 2.0).beat == 41
    assert sealed.tally().agrees(seal(None, 2, Stretch.of(rows(1, 2)), 1.0).tally())


def test_sealing_refuses_what_was_sealed_or_is_out_of_order() -> None:
    first = seal(None, 0, Stretch.of(rows(5, 2)), 1.0)
    with pytest.raises(AssertionError, match="sealed already"):
        seal(first, 0, Stretch.of(rows(6, 1)), 2.0)
    with pytest.raises(AssertionError, match="commit order"):
        Stretch.of(rows(5, 2)[::-1])


def test_a_key_stays_in_its_partition_and_a_beat_names_its_own() -> None:
    assert partition_of(beat_key(3), 8) == 3
    assert {partition_of(f"k{n}", 8) for n in range(200)} == set(range(8))
    assert commitment_of(b"salt", b"72 bpm") != commitment_of(b"tlas", b"72 bpm")

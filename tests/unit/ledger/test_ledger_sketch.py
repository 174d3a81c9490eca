"""A sketch names every difference or knows that it cannot; both ways of computing it agree."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yaoki.errors import InputError
from yaoki.ledger import fingerprint as fp
from yaoki.ledger.records import MAX_VERSION, Batch, Record, check_version
from yaoki.ledger.sketch import SIZE_BYTES, Sketch, Tally

records = st.builds(Record, st.text(max_size=70), st.integers(0, MAX_VERSION), st.binary(min_size=16, max_size=16))


def tally(items: list[Record]) -> Tally:
    total = Tally()
    for item in items:
        total.add(item)
    return total


@given(st.lists(records, min_size=fp.SMALL_BATCH, max_size=80))
@settings(max_examples=40, deadline=None)
def test_columns_and_plain_python_give_the_same_numbers(items: list[Record]) -> None:
    by_columns = Tally()
    by_columns.add_batch(Batch.of(items))
    one_by_one = tally(items)
    assert by_columns.agrees(one_by_one)
    assert by_columns.sketch == one_by_one.sketch
    assert fp.key_ids([item.key for item in items]) == [fp.key_id(item.key) for item in items]


@given(st.lists(records, max_size=30), st.lists(records, max_size=8), st.lists(records, max_size=8))
@settings(max_examples=60, deadline=None)
def test_what_is_on_both_sides_cancels_and_the_rest_is_named(both: list[Record], left: list[Record], right: list[Record]) -> None:
    expected = Counter((item.key, item.version, item.digest[5:8]) for item in left)
    expected.subtract((item.key, item.version, item.digest[5:8]) for item in right)
    decoded = (tally(both + left).sketch - tally(right + both).sketch).decode()
    if decoded is None:
        return  # it knows that it failed; that this is rare is measured below
    named = {(each.ident, each.version, each.digest24): each.copies for each in decoded}
    assert named == {(fp.key_id(key) & fp.P, version, int.from_bytes(tail, "little")): copies
                     for (key, version, tail), copies in expected.items() if copies}


def test_a_record_stored_four_times_shows_as_four() -> None:
    extra = Record("A000001", 3, b"x" * 16)
    (named,) = (tally([extra]).sketch - tally([extra] * 5).sketch).decode() or ()
    assert named.copies == -4


def test_decoding_is_never_wrong_and_rarely_fails() -> None:
    rng = random.Random(7)
    failed = Counter()
    for size in (5, 20, 60, 100, 190, 400):
        for _ in range(40):
            sketch = Sketch()
            truth = {}
            for _ in range(size):
                item = Record(f"k{rng.getrandbits(60)}", rng.randrange(5), rng.randbytes(16))
                copies = rng.choice((1, -1, 2, -3))
                sketch.add(item, copies)
                truth[fp.key_id(item.key) & fp.P, item.version] = copies
            decoded = sketch.decode()
            if decoded is None:
                failed[size] += 1
            else:
                assert {(each.ident, each.version): each.copies for each in decoded} == truth
    assert failed[5] == failed[20] == 0
    assert failed[60] <= 3
    assert failed[400] == 40, "192 cells cannot hold 400 records: a decode that does not know that it failed"


def test_sketches_add_up_like_the_sets_they_stand_for() -> None:
    one, two = [Record("a", 1), Record("b", 2)], [Record("c", 3)]
    assert tally(one).sketch + tally(two).sketch == tally(one + two).sketch
    assert (tally(one) + tally(two)).agrees(tally(two + one))


def test_a_sketch_survives_bytes_and_refuses_others() -> None:
    sketch = tally([Record("a", 1, b"d" * 16)]).sketch
    assert len(sketch.to_bytes()) == SIZE_BYTES == 6144
    assert Sketch.from_bytes(sketch.to_bytes()) == sketch
    with pytest.raises(InputError, match="6144 bytes"):
        Sketch.from_bytes(b"")


@pytest.mark.parametrize("version", [-1, "3", 1.0, True, None, MAX_VERSION + 1])
def test_a_version_that_cannot_be_counted_is_refused(version: object) -> None:
    with pytest.raises(InputError, match="whole number"):
        check_version(version, "row 3 of table T")


def test_key_ids_are_the_same_for_ever() -> None:
    # Stored sums were made with these: a change of the mixing function would make every healthy ledger look wrong.
    assert fp.key_id("A000001") == KNOWN_ID
    assert fp.record_sums(fp.key_id("A000001"), 3, bytes(range(16))) == KNOWN_SUMS


KNOWN_ID = 0x86fbaef3b29c41e2
KNOWN_SUMS = (0x889042a044468708, 0x7dc0740dd3cbfb0d)

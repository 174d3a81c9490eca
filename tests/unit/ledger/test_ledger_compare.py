"""However much differs, all of it is named and nothing else; agreement costs one pass."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable

import pytest

from yaoki.ledger import compare
from yaoki.ledger.compare import Summary, differences
from yaoki.ledger.records import Batch, Record
from yaoki.ledger.sketch import Tally

RNG = random.Random(3)


def made(count: int) -> list[Record]:
    return [Record(f"A{n // 5:06d}", n % 5, RNG.randbytes(16), 1.0) for n in range(count)]


def stream(records: list[Record]) -> Callable[[], AsyncIterator[Batch]]:
    async def batches() -> AsyncIterator[Batch]:
        for start in range(0, len(records), 700):
            yield Batch.of(records[start:start + 700])
    return batches


def kinds(summary: Summary) -> list[tuple[str, str, int]]:
    return [(each.kind, each.key, each.version) for each in summary.differences]


async def test_agreement_costs_one_pass() -> None:
    records = made(3000)
    summary = await differences(stream(records), stream(records[::-1]))
    assert summary == Summary(3000, 3000, [], 1)


async def test_each_kind_of_difference_is_named() -> None:
    records = made(30_000)
    found = [each for each in records if each.key != "A000001" or each.version not in {3, 4}]
    found += [found[100]] * 3 + [Record("B", 1, b"b" * 16)]
    changed = found[500] = Record(found[500].key, found[500].version, b"c" * 16)
    summary = await differences(stream(records), stream(found))
    assert kinds(summary) == sorted([
        ("missing", "A000001", 3), ("missing", "A000001", 4), ("duplicate", found[100].key, found[100].version),
        ("extra", "B", 1), ("corrupt", changed.key, changed.version)], key=lambda each: each[1:])
    assert summary.passes == 2
    assert (summary.expected, summary.found) == (30_000, 30_002)


async def test_a_digest_that_differs_beyond_the_bits_in_the_sketch_is_named_all_the_same() -> None:
    records = made(30_000)
    found = list(records)
    found[9] = Record(found[9].key, found[9].version, found[9].digest[:-1] + bytes([found[9].digest[-1] ^ 1]))
    summary = await differences(stream(records), stream(found))
    assert kinds(summary) == [("corrupt", records[9].key, records[9].version)]


@pytest.mark.parametrize(("lost", "extra"), [(300, 300), (4000, 0), (0, 6000), (6000, 6000)])
async def test_more_than_a_sketch_can_hold_is_cut_until_it_fits(lost: int, extra: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "LEAF_RECORDS", 1000)
    records = made(6000)
    gone = set(RNG.sample(range(6000), lost))
    found = [each for at, each in enumerate(records) if at not in gone]
    found += [Record(f"foreign-{n}", 0, b"f" * 16) for n in range(extra)]
    summary = await differences(stream(records), stream(found))
    assert sorted(kinds(summary)) == sorted(
        [("missing", records[at].key, records[at].version) for at in gone]
        + [("extra", f"foreign-{n}", 0) for n in range(extra)])


async def test_a_known_tally_saves_reading_the_source() -> None:
    records = made(2000)
    known = Tally()
    known.add_batch(Batch.of(records))

    async def unread() -> AsyncIterator[Batch]:
        raise AssertionError("the source was read")
        yield

    assert (await differences(unread, stream(records), known=known)).differences == []


async def test_memory_is_bounded_by_leaves_whatever_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "LEAF_RECORDS", 50)
    records = made(4000)
    summary = await differences(stream(records), stream([]))
    assert len(summary.differences) == 4000
    assert summary.passes >= 4

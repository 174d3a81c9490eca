"""The order of arrival, across looks and in bounded memory."""

from __future__ import annotations

import random

import pytest

from yaoki.ledger import Record, arrivals
from yaoki.ledger.arrivals import Arrivals
from yaoki.ledger.findings import out_of_order


def test_the_order_of_a_key_is_told_however_its_arrivals_are_cut_into_looks() -> None:
    rng = random.Random(3)
    for _ in range(300):
        times = [float(rng.randrange(6)) for _ in range(6)]
        versions = [Record("a", version, b"", 1 + at) for version, at in enumerate(times)]
        truth = {each.version for each in versions if any(later.at < each.at for later in versions[each.version + 1:])}
        remembered, named = Arrivals(), set()
        cut = rng.randrange(1, 6)
        for window in (versions[:cut], versions[cut:]):
            named |= {each.version for each in out_of_order(remembered.in_order(window))}
        assert named <= truth, "an order that was kept was called broken"
        late = max(versions[:cut], key=lambda each: (each.at, each.version))
        assert {version for version in truth if version >= cut or version == late.version} <= named


def test_memory_is_bounded_and_what_has_no_time_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MOST_KEYS", 10)
    remembered = Arrivals()
    remembered.in_order([Record(f"k{n}", 1, b"", 5.0) for n in range(30)])
    assert len(remembered) == 10
    assert remembered.in_order([Record("k29", 2, b"", 3.0)]) == [Record("k29", 2, b"", 3.0), Record("k29", 1, b"", 5.0)]
    assert remembered.in_order([Record("k29", 3), Record("__beat/0", 1, b"", 1.0)]) == []

"""In which order versions came to rest, from look to look, in bounded memory. Pure.

A look reads what was due since the last one, with its times of arrival. Version 3 may have been due then and version 4 now,
and 3 may have arrived after 4: so for each key the record that arrived last is kept until the next look that has the key.
Times of a sink may be as coarse as seconds (S3): what arrived in the same one is taken to be in order.
"""

from __future__ import annotations

from collections.abc import Iterable

from yaoki.ledger.records import Record, is_beat

MOST_KEYS = 100_000
"""Keys remembered, those seen longest ago forgotten first: some 20 MB."""


class Arrivals:
    """The record of each key that arrived last."""

    def __init__(self) -> None:
        self._last: dict[str, Record] = {}

    def __len__(self) -> int:
        return len(self._last)

    def in_order(self, found: Iterable[Record]) -> list[Record]:
        """These records and what is remembered of their keys, in the order of arrival; without times of arrival, nothing."""
        fresh = [each for each in found if each.at and not is_beat(each.key)]
        known = [self._last[key] for key in {each.key: None for each in fresh} if key in self._last]
        for each in fresh:
            last = self._last.pop(each.key, each)
            self._last[each.key] = max(last, each, key=lambda record: (record.at, record.version))
        for key in list(self._last)[:max(len(self._last) - MOST_KEYS, 0)]:
            del self._last[key]
        return sorted([*known, *fresh], key=lambda record: (record.at, record.version))

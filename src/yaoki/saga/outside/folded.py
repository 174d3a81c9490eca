"""What a run's history says of its dealings with the outside world. Most runs have none, and share `NOTHING`."""

from __future__ import annotations


class Folded:
    """The part of a machine that is about the outside.

    Attributes:
        asks: by number of a step, how often it was asked to the outside again because nothing was heard of it.
        limits: until when, at most, a parked step waits for the outside, signs of life or not.
        known: steps whose result came while the run undoes itself, so that their undo is not in doubt.
        once_more: steps whose undo had begun when that result came, and is made again.
        returned: steps that were undone when it came, and are to be undone again.
        locked: the keys that the run holds.
    """

    __slots__ = ("asks", "known", "limits", "locked", "once_more", "returned")

    def __init__(self) -> None:
        self.asks: dict[int, int] = {}
        self.limits: dict[int, float] = {}
        self.known: set[int] = set()
        self.once_more: set[int] = set()
        self.returned: set[int] = set()
        self.locked: frozenset[str] = frozenset()


NOTHING = Folded()
"""Never written to."""

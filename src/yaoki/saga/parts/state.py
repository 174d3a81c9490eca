"""What has become of the parts of one step: the fold of their records. Pure; the machine asks it what is left.

    begun ──▶ done ───────────────────────┐
      │  ├──▶ failed, certainly not there │
      │  └──▶ failed, in doubt ───────────┼──undone──▶ gone
      ├── (its process died) ─────────────┘
      └── not begun after all: as if nothing had been said of it
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from yaoki.saga.records import Failure, Record

_FAILURE = msgspec.json.Decoder(Failure)


class Part(IntEnum):
    """Where one part is."""

    BEGUN = 1
    DONE = 2
    FAILED = 3  # certainly left nothing
    DOUBTFUL = 4  # failed, and may have left something
    GONE = 5  # may have left something, and was undone


LEFT = frozenset({Part.BEGUN, Part.DONE, Part.DOUBTFUL})
FAILURES = frozenset({Part.FAILED, Part.DOUBTFUL, Part.GONE})


class Parts:
    """The parts of one step, by name, in the order in which they were begun.

    Attributes:
        states: where each is. given: JSON, what each was begun with; results: JSON, of those that are done.
        failures: why, of those that failed.
        left: how many may have left something.
    """

    __slots__ = ("failures", "given", "left", "results", "states")

    def __init__(self) -> None:
        self.states: dict[str, Part] = {}
        self.given: dict[str, bytes] = {}
        self.results: dict[str, bytes] = {}
        self.failures: dict[str, Failure] = {}
        self.left = 0

    def is_done(self, name: str) -> bool:
        return self.states.get(name) is Part.DONE

    def is_open(self, name: str) -> bool:
        """Was it begun, by a process that died perhaps, without an end?"""
        return self.states.get(name) is Part.BEGUN

    def to_undo(self) -> list[str]:
        """What may have left something, the last one begun first."""
        return [name for name, state in reversed(self.states.items()) if state in LEFT]

    # ── what happened: False for what cannot happen here, and then nothing has changed ───────────────────────────────

    def take(self, name: str, record: Record, *, begins: bool, ends: bool, undoes: bool) -> bool:
        """Take in a record about a part. begins, ends, undoes: may parts begin, end, be undone now? Their step says."""
        if record.kind == "started":
            return begins and self.begin(name, record.data)
        if record.kind == "done":
            return ends and self.done(name, record.data)
        if record.kind == "failed":
            return ends and self.failed(name, _FAILURE.decode(record.data))
        if record.kind == "undone":
            return undoes and self.undone(name)
        return record.kind == "attempts"  # those are for people

    def begin(self, name: str, given: bytes) -> bool:
        if name in self.states:
            return False
        self.states[name] = Part.BEGUN
        if given:
            self.given[name] = given
        self.left += 1
        return True

    def done(self, name: str, result: bytes) -> bool:
        if self.states.get(name) is not Part.BEGUN:
            return False
        self.states[name] = Part.DONE
        self.results[name] = result
        return True

    def failed(self, name: str, failure: Failure) -> bool:
        if self.states.get(name) is not Part.BEGUN:
            return False
        if not failure.attempts:  # its step was to be undone; should a process die before that is written, it may yet be made
            del self.states[name]
            self.given.pop(name, None)
            self.left -= 1
            return True
        self.states[name] = Part.DOUBTFUL if failure.in_doubt else Part.FAILED
        self.failures[name] = failure
        self.left -= not failure.in_doubt
        return True

    def undone(self, name: str) -> bool:
        if self.states.get(name) not in LEFT:
            return False
        self.states[name] = Part.GONE
        self.left -= 1
        return True

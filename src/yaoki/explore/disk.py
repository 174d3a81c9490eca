"""A file on a disk, for programs that keep their own: what was not synced is lost with the power, and what was may be torn or rotten.

    append ──▶ cache ──sync──▶ disk            power cut: the cache is gone
                          └─▶ half of it, under `disk.torn`
    replace: another file is written, synced and renamed, so that there is the old content or the new, and nothing between

A local disk answers at once, so these are plain functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yaoki.chaos.faults import At
from yaoki.explore import world as worlds
from yaoki.explore.dialect import DISK
from yaoki.explore.process import owner
from yaoki.explore.store import universe


class Platters:
    """What is on the disk, and what only the operating system has, of one file."""

    def __init__(self) -> None:
        self.durable = b""
        self.cached = b""
        self.cached_by: object = None

    def lose_memory(self) -> None:
        """The machine was started again."""
        self.cached = b""

    def digest(self) -> Any:
        return self.durable


class FakeFile:
    """A file that outlives its process.

    Args:
        name: its name in sites and timelines.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def durable(self) -> bytes:
        """What is on the disk, without a call: for invariants."""
        return self._platters.durable

    @property
    def _platters(self) -> Platters:
        world = universe()
        state: Platters | None = world.services.get(self.name)
        if state is None:
            state = world.services[self.name] = Platters()
        if state.cached_by is not owner.get():
            state.cached, state.cached_by = b"", owner.get()  # the cache went with the power
        return state

    def append(self, data: bytes) -> None:
        """Write to the end. Durable after `sync` only."""
        self._platters.cached += data

    def sync(self) -> None:
        """Make durable what was appended. Raises OSError: nothing of it is certain."""
        state = self._platters

        def flush() -> None:
            state.durable, state.cached = state.durable + state.cached, b""

        def tear() -> None:
            state.durable += state.cached[:len(state.cached) // 2]

        self._commit("sync", flush, tear)

    def overwrite(self, data: bytes) -> None:
        """Write over the whole content, in place: a power cut in the middle leaves half of the new one and the rest of the old."""
        state = self._platters
        half = len(data) // 2

        def write() -> None:
            state.durable, state.cached = data, b""

        def tear() -> None:
            state.durable = data[:half] + state.durable[half:]

        self._commit("overwrite", write, tear)

    def replace(self, data: bytes) -> None:
        """Write another file, sync it, and rename it to this one: all or nothing."""
        state = self._platters

        def write() -> None:
            state.durable, state.cached = data, b""

        self._commit("replace", write, lambda: None)

    def truncate(self, size: int) -> None:
        """Cut everything after `size` bytes off, durably."""
        state = self._platters

        def cut() -> None:
            state.durable, state.cached = state.durable[:size], b""

        self._commit("truncate", cut, lambda: None)

    def read(self) -> bytes:
        """The whole content, as this process sees it."""
        state = self._platters

        def rot() -> bytes:
            """One bit in the middle: in data, where there is any."""
            middle = len(state.durable) // 2
            state.durable = state.durable[:middle] + bytes([state.durable[middle] ^ 1]) + state.durable[middle + 1:]
            return state.durable + state.cached

        variants: worlds.Variants = {"disk.bitrot": rot} if state.durable else {}
        content: bytes = universe().call_blocking(self.name, "read", lambda: state.durable + state.cached, kind=At.LOAD, dialect=DISK,
                                                  timeout_s=None, variants=variants)
        return content

    def _commit(self, op: str, write: Callable[[], None], tear: Callable[[], None]) -> None:
        universe().call_blocking(self.name, op, write, kind=At.COMMIT, dialect=DISK, timeout_s=None, variants={"disk.torn": tear})

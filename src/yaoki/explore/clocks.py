"""Wall clocks that are wrong, each for its own host: ahead of the others, behind them, or standing still.

The monotonic clock is right everywhere: no program may measure a length with anything else. A host is a process, or a service that
is answering a request.
"""

from __future__ import annotations

from yaoki.explore.process import here

# What clients of time services drift to before anybody notices: Amazon's and Google's guides warn at a few minutes.
SKEW_S = 300.0
FREEZE_S = 600.0


class Clocks:
    """The wrong clocks of one universe."""

    def __init__(self) -> None:
        self._ahead: dict[str, float] = {}
        self._frozen: dict[str, tuple[float, float]] = {}  # host → (what it shows, until when by the right time)

    def skew(self, host: str, ahead_s: float) -> None:
        """Let the clock of `host` run `ahead_s` seconds ahead of the right time (below 0: behind)."""
        self._ahead[host] = ahead_s

    def freeze(self, host: str, now: float, length_s: float) -> None:
        """Let the clock of `host` stand still for so long."""
        self._frozen[host] = self.read(now, host), now + length_s

    def read(self, now: float, host: str | None = None) -> float:
        """What the clock of a host shows (of the one that is running, unless named). now: the right time."""
        name = here() if host is None else host
        if name in self._frozen:
            shown, until = self._frozen[name]
            if now < until:
                return shown
            del self._frozen[name]
        return now + self._ahead.get(name, 0.0)

    def digest(self) -> str:
        return f"{sorted(self._ahead.items())}{sorted(self._frozen)}"

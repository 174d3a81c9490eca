"""Decide when the fallback is run although nothing failed, and whether it still deserves trust.

A fallback that is not used is not known to work: its first real call is in the middle of an outage, on a cold path, with
a load nobody measured. So a share of healthy calls runs it too, at least once a window however rare calls are, and the
two results are compared.

    unproven ──a run succeeds──▶ proven ──no success for `window_s`──▶ unproven (an alarm, once)

Source: the argument is AWS's, "Avoiding fallback in distributed systems" (Builders' Library): exercise it always, or have none.
"""

from __future__ import annotations

from yaoki.errors import ConfigError


class Exercise:
    """When to run the fallback for practice.

    Args:
        share: of healthy calls that run it, in [0, 1]; evenly spread, not drawn, so 0.01 is every hundredth call.
        window_s: it must have run with success in each stretch of this many seconds, above 0.
    """

    __slots__ = ("_credit", "_lacking", "_tried_at", "began_at", "differed", "failed", "proven_at", "ran", "share", "window_s")

    def __init__(self, share: float, window_s: float) -> None:
        if not 0 <= share <= 1:
            raise ConfigError(f"share={share!r} is not in [0, 1]", do="give the share of healthy calls, such as 0.01")
        if window_s <= 0:
            raise ConfigError(f"window={window_s!r} seconds is not above 0", do="give how old its last success may be")
        self.share = share
        self.window_s = window_s
        self.began_at: float | None = None
        self.proven_at = float("-inf")
        """When it last succeeded, in practice or in need."""
        self.ran = self.failed = self.differed = 0
        self._credit = 0.0
        self._tried_at = float("-inf")
        self._lacking = False

    def is_due(self, now: float) -> bool:
        """A healthy call ends now: shall the fallback be run as well?"""
        if self.began_at is None:
            self.began_at = now
        if self.share == 0.0:
            return False
        self._credit += self.share
        # Rare calls alone would not fill the window: halfway through it, do not wait for the share to come round.
        late = now - max(self.proven_at, self._tried_at, self.began_at) > self.window_s / 2
        if self._credit < 1.0 - 1e-9 and not late:
            return False
        self._credit = max(0.0, self._credit - 1.0)
        self._tried_at = now
        return True

    def succeeded(self, now: float, *, same: bool = True) -> None:
        """The fallback gave a result. `same`: it agreed with the real one, or nothing was compared."""
        self.ran += 1
        self.proven_at = now
        self._lacking = False
        if not same:
            self.differed += 1

    def failed_to_run(self) -> None:
        """The fallback raised."""
        self.ran += 1
        self.failed += 1

    def is_lacking(self, now: float) -> bool:
        """Has it gone its window without one success? True once each time that happens, for one alarm."""
        if self._lacking or self.began_at is None or now - max(self.proven_at, self.began_at) <= self.window_s:
            return False
        self._lacking = True
        return True

"""The brake: stop beginning new runs of a saga when an unusual share of them has to be undone. A decider.

A deploy that breaks one step undoes every run that comes its way, correctly and uselessly. With the brake on, new runs
wait in the journal, nothing is lost, and somebody is told. Runs under way go on.
"""

from __future__ import annotations

from collections import deque

# Enough runs that a bad minute is not a bad day.
WINDOW = 200


class Brake:
    """Counts how the last runs ended.

    Args:
        share: the share of undone runs in the last 200 that puts the brake on, in (0, 1]; None: never.

        off ──more than `share` of the last 200 undone──▶ on ──release()──▶ off, counting from new
    """

    def __init__(self, share: float | None) -> None:
        self._share = share
        self._last: deque[bool] = deque(maxlen=WINDOW)
        self.undone = 0
        self.is_on = False

    @property
    def ended_runs(self) -> int:
        return len(self._last)

    def ended(self, undone: bool) -> bool:  # noqa: FBT001
        """Count the end of a run. True when this puts the brake on."""
        if self._share is None:
            return False
        if len(self._last) == WINDOW:
            self.undone -= self._last[0]
        self._last.append(undone)
        self.undone += undone
        if not self.is_on and len(self._last) == WINDOW and self.undone > self._share * WINDOW:
            self.is_on = True
            return True
        return False

    def release(self) -> None:
        self.is_on = False
        self._last.clear()
        self.undone = 0

"""One hedged call in plain threads: each attempt in a pooled thread, the first included, as nobody can interrupt a function.

The rules are those of `race.py`, but for the losers: they run on to their end, and what they give is discarded.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for_threads
from contextvars import copy_context
from math import inf
from typing import Any

from yaoki import runtime
from yaoki.errors import AttemptTimeoutError
from yaoki.policies import scope, sync
from yaoki.policies.classify import classify, mark_in_doubt
from yaoki.policies.race import Rules, is_final


class ThreadRace:
    """One hedged call in plain threads. The caller waits no longer than its deadline; losers run on to their end."""

    def __init__(self, rules: Rules, delay_s: float, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.rules = rules
        self.delay_s = delay_s
        self.began = runtime.monotonic()
        self.made = 0
        self.harmless = 0  # attempts that ended in the certainty that nothing happened
        self.spent = False  # no further copy will be sent
        self.work = lambda: inner(*args, **kwargs)
        self.running: dict[Future[Any], int] = {}

    def send(self, delay_s: float) -> bool:
        """Start an attempt, if one is left and, from the second on, the budget has a token for it."""
        if self.made >= self.rules.most or (self.made and not self.rules.may_send()):
            return False
        self.made += 1
        self.running[sync.submit(copy_context().run, self.work)] = self.made
        if self.made > 1:
            self.rules.sent(self.made, delay_s)
        return True

    def run(self) -> Any:
        """The first acceptable result, or the first attempt's error."""
        self.send(0.0)
        first_error: Exception | None = None  # the first attempt's, or another's until it has failed
        last: Any = None
        notes: dict[int, str] = {}
        try:
            while self.running:
                if not (done := self._wait()):
                    continue
                for future in done:
                    number = self.running.pop(future)
                    error = future.exception()
                    if error is None:
                        last = future.result()
                        if self.rules.acceptable(last):
                            return self._won(number, last)
                        notes[number] = "a result that is not acceptable"
                    else:
                        self.harmless += classify.nothing_happened(error)
                        if not isinstance(error, Exception) or is_final(error):
                            raise self._signed(error)
                        notes[number] = repr(error)
                        if number == 1 or first_error is None:
                            first_error, failed_first = error, number
                    self._after_failure(error)
            if first_error is None:
                return last
            del notes[failed_first]
            for number, note in sorted(notes.items()):
                first_error.add_note(f"yaoki: hedged, attempt {number}: {note}")
            raise self._signed(first_error)
        finally:
            first_error = None
            for loser in self.running:
                if not loser.cancel():
                    loser.add_done_callback(self._late)

    def _after_failure(self, error: Exception | None) -> None:
        """Send the next copy at once, unless the service asks for time, or for peace."""
        wait_s = (classify(error).retry_after_s or 0.0) if error is not None else 0.0
        if wait_s == inf:
            self.spent = True
        elif wait_s and self.running:
            self.delay_s = wait_s
        elif not self.spent and scope.remaining() > wait_s:
            if wait_s:
                runtime.sleep_blocking(wait_s)
            self.send(0.0)

    def _wait(self) -> set[Future[Any]]:
        """The attempts that ended; none when it is time for a copy, which is then sent.

        Raises:
            AttemptTimeoutError: the caller's deadline passed.
        """
        left_s = scope.remaining()
        wait_s = left_s if self.spent else min(self.delay_s, left_s)
        done, _ = wait_for_threads(self.running, None if wait_s == inf else wait_s, FIRST_COMPLETED)
        if not done:
            if scope.remaining() <= 0:
                raise AttemptTimeoutError("no attempt of a hedged call was answered before the deadline.", by="deadline", timeout=left_s,
                                          do="It may have happened: repeat it with the same idempotency key, or undo it.")
            self.spent = not self.send(self.delay_s)
        return done

    def _signed(self, error: BaseException) -> BaseException:
        """The error that the call ends with. Who runs on, or failed otherwise, may have done it all the same."""
        if self.harmless < self.made:
            mark_in_doubt(error)
        return error

    def _won(self, number: int, result: Any) -> Any:
        if number > 1:
            self.rules.won(number, runtime.monotonic() - self.began)
        return result

    def _late(self, loser: Future[Any]) -> None:
        if not loser.cancelled() and loser.exception() is None:
            self.rules.discard(loser.result())

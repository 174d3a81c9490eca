"""One daemon thread that does something every so often, until it is closed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from yaoki import runtime

log = logging.getLogger("yaoki.shared")


class Ticker:
    """Calls `work` every `every_s` seconds, give or take a tenth, so that a fleet does not come in step.

    What `work` raises is logged, and it is called again next time: a keeper that died silently would be worse than none.
    """

    def __init__(self, work: Callable[[], object], every_s: float, *, name: str) -> None:
        self._work = work
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._rng = runtime.rng()

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._work()
            except Exception:
                log.exception("%s failed; it tries again in %g s", self._thread.name, self._every_s)
            self._over.wait(self._every_s * self._rng.uniform(0.9, 1.1))

    def close(self) -> None:
        """End it, and wait for the work under way."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

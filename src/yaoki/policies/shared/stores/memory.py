"""A store in memory, for tests and for several breakers of one process."""

from __future__ import annotations

import threading

from yaoki import runtime
from yaoki.policies.shared.stores.port import Entry

Key = tuple[str, str, str]


class MemoryStore:
    """Rows in a dictionary; time is the runtime's."""

    def __init__(self) -> None:
        self._rows: dict[Key, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    def put(self, service: str, kind: str, name: str, value: bytes, ttl_s: float) -> None:
        with self._lock:
            self._rows[service, kind, name] = (value, runtime.monotonic() + ttl_s)

    def remove(self, service: str, kind: str, name: str) -> None:
        with self._lock:
            self._rows.pop((service, kind, name), None)

    def acquire(self, service: str, name: str, owner: str, ttl_s: float) -> bool:
        now = runtime.monotonic()
        with self._lock:
            held = self._rows.get((service, "lease", name))
            if held is not None and held[1] > now and held[0] != owner.encode():
                return False
            self._rows[service, "lease", name] = (owner.encode(), now + ttl_s)
            return True

    def rows(self, service: str = "") -> list[Entry]:
        now = runtime.monotonic()
        with self._lock:
            self._rows = {key: row for key, row in self._rows.items() if row[1] > now}
            return [Entry(*key, value, until - now) for key, (value, until) in sorted(self._rows.items())
                    if service in ("", key[0])]

    def close(self) -> None:
        """Nothing to let go of."""

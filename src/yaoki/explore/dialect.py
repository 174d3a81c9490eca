"""How a fault looks to a caller, which depends on what it calls with: our own errors, httpx, requests, a disk."""

from __future__ import annotations

from typing import Any, Protocol

from yaoki.errors import AttemptTimeoutError, DeclinedError, InDoubtError, JournalError, RefusedError


class Dialect(Protocol):
    """Each answer is an exception to raise, or a value to return (a response with status 429, say)."""

    def refused(self, site: str) -> Any:
        """Certainly not done: the connection was refused."""

    def in_doubt(self, site: str) -> Any:
        """The connection broke after the request was sent."""

    def timed_out(self, site: str, after_s: float) -> Any:
        """No answer in the client's own time."""

    def throttled(self, site: str) -> Any:
        """Not now."""

    def failed(self, site: str) -> Any:
        """The service answered that it failed."""

    def conflict(self, site: str) -> Any:
        """Somebody else was there first, and nothing was done."""

    def exhausted(self, site: str) -> Any:
        """Nothing was sent, because something on this side ran out: connections, file descriptors."""


class ServiceBusyError(RefusedError):
    """A simulated service answered: too many requests, nothing was done. `retry_after` is seconds."""

    code = "YK-1190"
    why = "The explorer made the service answer like this, once, to see what the caller does."


class ServiceConflictError(DeclinedError):
    """A simulated service answered: somebody else was there first, nothing was done (HTTP 409, SQLSTATE 40001)."""

    code = "YK-1393"
    why = "The explorer made the service answer like this, once. Read again and decide again; it may even have been your own write."


class OurDialect:
    """Yaoki's own errors, by *did it happen?*"""

    def refused(self, site: str) -> Any:
        return RefusedError(f"{site}: connection refused", do="simulated by the explorer")

    def in_doubt(self, site: str) -> Any:
        return InDoubtError(f"{site}: the connection was lost after the request was sent", do="simulated by the explorer")

    def timed_out(self, site: str, after_s: float) -> Any:
        return AttemptTimeoutError(f"{site}: no answer within {after_s:g} s", do="simulated by the explorer", timeout=after_s)

    def throttled(self, site: str) -> Any:
        return ServiceBusyError(f"{site}: 429, too many requests", do="simulated by the explorer", retry_after=0.5)

    def failed(self, site: str) -> Any:
        return InDoubtError(f"{site}: 500, internal error", do="simulated by the explorer")

    def conflict(self, site: str) -> Any:
        return ServiceConflictError(f"{site}: another transaction was there first", do="simulated by the explorer")

    def exhausted(self, site: str) -> Any:
        return RefusedError(f"{site}: no connection is free", do="simulated by the explorer")


FAKE = OurDialect()


class DiskDialect(OurDialect):
    """What an operating system says about a disk."""

    def refused(self, site: str) -> Any:
        return OSError(28, f"{site}: no space left on device")

    def failed(self, site: str) -> Any:
        return OSError(5, f"{site}: input/output error")

    def conflict(self, site: str) -> Any:
        return JournalError(f"{site}: database is locked", do="simulated by the explorer")


DISK = DiskDialect()

"""A health check that opens a service's breaker before the calls find out, and closes it when the service is well again.

    with HealthCheck("flights", probe=lambda: httpx.get(url).raise_for_status(), every=5.0, store="redis://..."):
        ...

One checker of the fleet is elected through the store and probes for all; when it dies, another takes over once its lease has
run out. Its order lives for three checks, so an order never outlives its checker for long. Without a store it opens and
closes a breaker of this process.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from yaoki.errors import ConfigError
from yaoki.policies.breaker import Breaker
from yaoki.policies.shared.keeper import give_order, views, withdraw_order
from yaoki.policies.shared.stores import Store, store_at
from yaoki.policies.shared.ticker import Ticker
from yaoki.policies.shared.view import LIVES


class Health:
    """Decide whether a service is well, from checks in a row. One bad check is an accident.

        well ──`failures` in a row──▶ ill ──`successes` in a row──▶ well
    """

    def __init__(self, failures: int, successes: int) -> None:
        self.failures, self.successes = failures, successes
        self.is_well = True
        self._in_a_row = 0  # checks against what we believe

    def checked(self, ok: bool) -> bool:  # noqa: FBT001
        """Take in a check. Returns whether the service is well now."""
        self._in_a_row = 0 if ok == self.is_well else self._in_a_row + 1
        if self._in_a_row >= (self.failures if self.is_well else self.successes):
            self.is_well = ok
            self._in_a_row = 0
        return self.is_well


class HealthCheck:
    """Probes a service, and orders its breakers open while it is ill.

    Args:
        service: whose breakers.
        probe: a function, or async function, of no arguments; what it raises is illness. Give it a timeout of its own.
        every: seconds between checks.
        store: a `Store` or its URL, for a fleet; or `breaker`: one of this process.
        failures, successes: checks in a row that change the mind.
    """

    WHO = "health check"

    def __init__(self, service: str, *, probe: Callable[[], Any], every: float = 5.0, store: Store | str | None = None,
                 breaker: Breaker | None = None, failures: int = 3, successes: int = 2, node: str = "") -> None:
        if (store is None) == (breaker is None):
            raise ConfigError("a health check needs a store (for a fleet) or a breaker (of this process), and not both",
                              do="HealthCheck(service, probe=..., store='redis://...')")
        if not every > 0 or failures < 1 or successes < 1:
            raise ConfigError("every is seconds above 0, failures and successes are at least 1", do="correct the health check")
        self.service = service
        self.every_s = every
        self.health = Health(failures, successes)
        self.last_error = ""
        self._probe = probe
        self._store = store_at(store) if isinstance(store, str) else store
        self._breaker = breaker
        self._node = node or f"{socket.gethostname()}:{os.getpid()}"
        self._ticker = Ticker(self.check, every, name=f"yaoki-health-{service}")

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._ticker.close()
        if self._store is not None:
            self._store.close()

    def check(self) -> bool | None:
        """One check, if this process is the elected checker; None if it is not. Otherwise: is the service well?"""
        if self._store is not None and not self._store.acquire(self.service, "checker", self._node, self.every_s * LIVES):
            return None
        well = self.health.checked(self._probed())
        if self._breaker is None:
            self._order(well)
        elif not well:
            self._breaker.trip(f"{self.WHO}: {self.last_error}")
        elif self._breaker.state == "forced_open" and self._breaker.circuit.reason.startswith(self.WHO):
            self._breaker.reset(self.WHO)
        return well

    def _probed(self) -> bool:
        try:
            answer = self._probe()
            if inspect.isawaitable(answer):
                asyncio.run(_awaited(answer))
        except Exception as error:
            self.last_error = f"{type(error).__name__}: {error}"[:200]
            return False
        return True

    def _order(self, well: bool) -> None:  # noqa: FBT001
        """Write, renew or withdraw our order; an order by hand is not ours to touch."""
        assert self._store is not None
        standing = next((view.order for view in views(self._store, self.service)), None)
        if standing is not None and standing.who != self.WHO:
            return
        if not well:
            give_order(self._store, self.service, "forced_open", who=self.WHO, why=self.last_error, ttl_s=self.every_s * LIVES)
        elif standing is not None:
            withdraw_order(self._store, self.service)


async def _awaited(work: Any) -> Any:
    return await work

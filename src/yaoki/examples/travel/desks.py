"""The agency's way to its services: one client each, with a policy, the step's key on every request, and typed answers.

Addresses are read from `TRAVEL_HOTEL`, `TRAVEL_FLIGHT`, ... when a desk is first used; the defaults are those of
`python -m yaoki.examples.travel.host --port 8101`.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import httpx
import msgspec

from yaoki import DeclinedError
from yaoki.examples.travel.catalogue import SERVICES
from yaoki.integrations.httpx import async_client
from yaoki.policies import backoff, bulkhead, pipeline, retry, timeout
from yaoki.service import Service

T = TypeVar("T")

ATTEMPT_S = 0.5
DECLINED = frozenset({402, 404, 409})
FIRST_PORT = 8101
CONNECTIONS = 8


class Desk:
    """One service, as the agency calls it. It belongs to one event loop."""

    def __init__(self, name: str, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.name = name
        self.service = Service(name, policy=pipeline(
            # Half of the calls may be repetitions: a demo in which every fifth fails needs more than the usual tenth.
            retry(6, backoff.exponential(0.02, cap=0.5), budget=0.5),
            # httpx 0.28 loses a connection of its pool for good when a request is cancelled, or waits for the pool in vain
            # (docs/decisions/0002). So requests wait here, and httpx's own timeout comes before the policy's.
            bulkhead(CONNECTIONS, queue=1000, max_wait=30.0),
            timeout(2 * ATTEMPT_S),
        ))
        self.client = async_client(self.service, transport=transport or _transport(), base_url=url,
                                   timeout=httpx.Timeout(ATTEMPT_S, pool=None))

    async def do(self, path: str, body: dict[str, Any], answer: type[T]) -> T:
        """Make an effect; the integration adds the key of the step under way. `DeclinedError`: the service says no."""
        reply = await self.client.post(path, json=body)
        if reply.status_code in DECLINED:
            _raise_if_declined(reply)
        return msgspec.json.decode(reply.raise_for_status().content, type=answer)

    async def undo(self, path: str, key: str) -> None:
        """Undo what was done under `key`, whether it ever was or not."""
        (await self.client.delete(path, params={"key": key})).raise_for_status()


def _transport() -> httpx.AsyncBaseTransport:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=CONNECTIONS)
    return httpx.AsyncHTTPTransport(limits=limits, verify=_tls())


@cache
def _tls() -> ssl.SSLContext:
    """One for all desks: to read the system's certificates takes a tenth of a second."""
    return ssl.create_default_context()


def _raise_if_declined(reply: httpx.Response) -> None:
    problem = msgspec.json.decode(reply.content)
    if problem.get("code") == DeclinedError.code:
        raise DeclinedError(problem["title"], do=problem.get("do", ""), status=reply.status_code)


# A client's connections belong to its event loop, and end with it.
_desks: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Desk]] = WeakKeyDictionary()


def install(made: Mapping[str, Desk]) -> None:
    """Use these desks on the running event loop."""
    _desks[asyncio.get_running_loop()] = dict(made)


def url_of(name: str) -> str:
    return os.environ.get(f"TRAVEL_{name.upper()}", f"http://127.0.0.1:{FIRST_PORT + SERVICES.index(name)}")


def desk(name: str) -> Desk:
    """The desk of this service on the running event loop; made when first asked for."""
    found = _desks.setdefault(asyncio.get_running_loop(), {})
    if name not in found:
        found[name] = Desk(name, url_of(name))
    return found[name]


def connect(name: str, url: str, transport: httpx.AsyncBaseTransport | None = None) -> Desk:
    """Reach this service at `url`, or through a transport of your own, from the running event loop."""
    made = _desks.setdefault(asyncio.get_running_loop(), {})[name] = Desk(name, url, transport)
    return made


async def close() -> None:
    """Close every desk of the running event loop."""
    for made in _desks.pop(asyncio.get_running_loop(), {}).values():
        await made.client.aclose()

"""httpx2 through a `Service`: the same as `yaoki.integrations.httpx`, for the twin of httpx that newer libraries use."""

from __future__ import annotations

from typing import Any

import httpx2  # type: ignore[import-not-found, unused-ignore]

from yaoki.integrations.httpx import AsyncCalls, SyncCalls
from yaoki.service import Service


class AsyncTransport(AsyncCalls, httpx2.AsyncBaseTransport):  # type: ignore[misc, unused-ignore]
    """An httpx2 transport whose every request goes through `service`."""

    def _default(self) -> Any:
        return httpx2.AsyncHTTPTransport()


class Transport(SyncCalls, httpx2.BaseTransport):  # type: ignore[misc, unused-ignore]
    """The same for `httpx2.Client`."""

    def _default(self) -> Any:
        return httpx2.HTTPTransport()


def async_client(service: Service, **settings: Any) -> Any:
    """An `httpx2.AsyncClient` for this service; `settings` are httpx2's own."""
    return httpx2.AsyncClient(transport=AsyncTransport(service), **settings)


def client(service: Service, **settings: Any) -> Any:
    """An `httpx2.Client` for this service; `settings` are httpx2's own."""
    return httpx2.Client(transport=Transport(service), **settings)

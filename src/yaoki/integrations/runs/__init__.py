"""Runs over HTTP: start one, look at it, answer what it waits for.

    from yaoki.integrations.runs import runs_endpoint

    app = Starlette(routes=[Mount("/", runs_endpoint(trips, token=os.environ["RUNS_TOKEN"]))])

    guard.py      who may ask
    endpoint.py   what is answered, without a server
    tokens.py     steps that the outside completes
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yaoki.app import App
from yaoki.integrations.runs.endpoint import RunsEndpoint
from yaoki.integrations.runs.guard import Guard
from yaoki.messages.accepted import Accepted
from yaoki.messages.accepted.endpoint import Request


def runs_endpoint(app: App, *, path: str = "/runs", token: str | tuple[str, ...] = (), verify: Callable[[Request], Any] | None = None,
                  max_body: int = 1_048_576, wait: float = 5.0) -> Accepted:
    """An ASGI application (`.wsgi(loop)` makes it a WSGI one) over an open app.

    Args:
        path: where it is, as `/runs`.
        token: the caller sends it as `Authorization: Bearer ...`; several while they are changed.
        verify: instead: a function, async or not, of the request, that returns who asks (a name, or True), or False.
            With neither, only programs on this machine are answered.
        max_body: bytes. wait: seconds to wait for an answer to be recorded, before saying that it is stored (202).

    Raises:
        ConfigError: the path, or the token, cannot be one.
    """
    return Accepted(RunsEndpoint(app, Guard(token, verify), path=path, max_body=max_body, wait_s=wait))


__all__ = ["Guard", "RunsEndpoint", "runs_endpoint"]

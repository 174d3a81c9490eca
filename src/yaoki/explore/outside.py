"""What a machine has and a universe has not: loops that are asked for sockets, processes or signals refuse, and say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yaoki.explore.stuck import EscapeError

_REFUSED = ("create_connection", "create_server", "create_datagram_endpoint", "create_unix_connection", "create_unix_server",
            "getaddrinfo", "getnameinfo", "sock_connect", "sock_recv", "sock_sendall", "sock_accept", "add_reader", "add_writer",
            "subprocess_exec", "subprocess_shell", "connect_read_pipe", "connect_write_pipe", "add_signal_handler")


def shut(loop_class: type) -> None:
    """Make every method of `loop_class` that would leave the universe an `EscapeError`."""
    for name in _REFUSED:
        setattr(loop_class, name, _refusal(name))


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(_self: object, *_args: Any, **_kwargs: Any) -> Any:
        raise EscapeError(f"loop.{name} was called inside the explorer, which has no real network, processes or signals",
                          do="reach services by host name (httpx, requests), or fake what needs the machine", where=name)

    return refuse

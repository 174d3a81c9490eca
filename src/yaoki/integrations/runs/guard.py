"""Who may ask: the bearer of a token, whom a function of the program's own lets in, or, with neither, this machine only.

"This machine" is said by the connection's address, and a proxy on this machine has it too, as has a page in a browser whose
name was bent to 127.0.0.1. So without a token a request that came through a proxy, or that names another host, is refused.
"""

from __future__ import annotations

import hmac
import inspect
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from yaoki.errors import ConfigError
from yaoki.messages.accepted.endpoint import Request

# Shorter ones can be guessed over the network; 16 random characters cannot.
LEAST = 16

_PROXIED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


class Denied(Exception):
    """This request is not let in. Its status is 401 or 403."""

    def __init__(self, status: int, detail: str, do: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.do = do


class Guard:
    """Lets requests in. Arguments as of `runs_endpoint`."""

    def __init__(self, token: str | tuple[str, ...] = (), verify: Callable[[Request], Any] | None = None) -> None:
        self._tokens = tuple(each.encode() for each in ((token,) if isinstance(token, str) else token))
        self._verify = verify
        if any(len(each) < LEAST for each in self._tokens):
            raise ConfigError(f"a token has at least {LEAST} characters", do="make one with `openssl rand -hex 32`")
        if self._tokens and verify is not None:
            raise ConfigError("token= and verify= are both given", do="give one of them")

    async def who(self, request: Request) -> str:
        """The caller's name, or "". Raises Denied."""
        if self._verify is not None:
            found = self._verify(request)
            found = await found if inspect.isawaitable(found) else found
            if not found:
                raise Denied(403, "this caller is not let in", "see what the program's own check asks for")
            return found if isinstance(found, str) else ""
        if self._tokens:
            self._check_token(request.headers.get("authorization", ""))
        else:
            _check_local(request)
        return ""

    def _check_token(self, header: str) -> None:
        scheme, _, given = header.partition(" ")
        # All are compared, and each in the same time however much of it is right.
        fits = [hmac.compare_digest(given.strip().encode(), token) for token in self._tokens]
        if scheme.lower() != "bearer" or not any(fits):
            raise Denied(401, "the token is missing or wrong", "send Authorization: Bearer TOKEN")


def _check_local(request: Request) -> None:
    do = "give the endpoint a token= or verify=, and send it"
    if not _is_loopback(request.client):
        raise Denied(403, "without a token only programs on this machine are answered", do)
    if any(name in request.headers for name in _PROXIED):
        raise Denied(403, "this came through a proxy, which could be for anybody", do)
    host = request.headers.get("host", "")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name != "localhost" and not _is_loopback(name):
        raise Denied(403, f"this was sent to {host!r}, which is not this machine's own name", do)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False

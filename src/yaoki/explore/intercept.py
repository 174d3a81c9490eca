"""Where httpx, requests and urllib3 leave the process: inside a universe, a request goes to the host of that name.

The lowest place that still knows the whole request is taken: httpx's transports, and urllib3's connection pool (under
requests). So retries, pools, redirects, cookies and timeouts of the user's own client are at work, one wire attempt each.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from yaoki.chaos.faults import At
from yaoki.explore import remembering
from yaoki.explore import world as worlds
from yaoki.explore.network import READS, Host, Reply, Request, run_inline


def install(stack: contextlib.ExitStack, world: Callable[[], worlds.World | None]) -> None:
    """Patch the HTTP clients that are imported, until `stack` closes.

    Args:
        world: the universe that the running code is in, or None.
    """
    for name in ("httpx", "httpx2"):
        if name in sys.modules:
            _httpx(stack, world, sys.modules[name])
            remembering.install(stack, sys.modules[name])
    if "urllib3" in sys.modules:
        _urllib3(stack, world)


def _put(stack: contextlib.ExitStack, holder: Any, name: str, value: Any) -> None:
    stack.callback(setattr, holder, name, getattr(holder, name))
    setattr(holder, name, value)


def _host(world: worlds.World, name: str) -> Host | None:
    host = world.services.get(name)
    return host if isinstance(host, Host) else None


def _arguments(world: worlds.World, host: Host, request: Request, dialect: Any, timeout_s: float | None) -> dict[str, Any]:
    op = f"{request.method} {request.path}"
    # Ids in paths would make a site of every id; the first part says what is called.
    op = "/".join(op.split("/")[:2])
    del world
    return {"service": host.name, "op": op.replace(",", ";").replace("=", ":").replace("+", " ").replace("@", " "),
            "effect": lambda: host.serve(request), "kind": At.READ if request.method in READS else At.CALL,
            "dialect": dialect, "timeout_s": timeout_s,
            "variants": {fault: partial(_spoiled, host, request, spoil) for fault, spoil in _SPOILS.items()}}


def _spoiled(host: Host, request: Request, spoil: Callable[[bytes], bytes]) -> Any:
    """The service did its work, and its reply did not survive the way."""
    said = host.serve(request)

    async def later() -> Reply:
        reply = await said
        reply.body = spoil(reply.body)
        return reply  # type: ignore[no-any-return]

    if not isinstance(said, Reply):
        return later()
    said.body = spoil(said.body)
    return said


_SPOILS: dict[str, Callable[[bytes], bytes]] = {
    "payload.truncate": lambda body: body[: len(body) // 2],
    "payload.corrupt": lambda body: body[::-1],
    "payload.unexpected": lambda _: b'{"unexpected": true}',
}


# ── httpx ──


class _Httpx:
    """How faults look to a user of httpx: its exceptions, or responses."""

    def __init__(self, httpx: Any, request: Any) -> None:
        self._httpx = httpx
        self._request = request

    def refused(self, site: str) -> Any:
        return self._httpx.ConnectError(f"{site}: connection refused", request=self._request)

    def in_doubt(self, site: str) -> Any:
        return self._httpx.ReadError(f"{site}: connection reset by peer", request=self._request)

    def timed_out(self, site: str, after_s: float) -> Any:
        return self._httpx.ReadTimeout(f"{site}: no answer within {after_s:g} s", request=self._request)

    def throttled(self, site: str) -> Any:
        return Reply(429, body=f"{site}: too many requests".encode(), headers=[("retry-after", "1")])

    def failed(self, site: str) -> Any:
        return Reply(500, body=f"{site}: internal error".encode())

    def conflict(self, site: str) -> Any:
        return Reply(409, body=f"{site}: conflict".encode())

    def exhausted(self, site: str) -> Any:
        return self._httpx.PoolTimeout(f"{site}: no connection of the pool was free", request=self._request)


def _httpx(stack: contextlib.ExitStack, world: Callable[[], worlds.World | None], httpx: Any) -> None:
    real_async, real_sync = httpx.AsyncHTTPTransport.handle_async_request, httpx.HTTPTransport.handle_request

    def asked(inside: worlds.World, request: Any) -> tuple[Host, _Httpx, float | None]:
        host = _host(inside, request.url.host)
        dialect = _Httpx(httpx, request)
        if host is None:
            raise httpx.ConnectError(f"there is no host {request.url.host!r} in this universe: world.host({request.url.host!r}, app)", request=request)
        return host, dialect, request.extensions.get("timeout", {}).get("read")

    def answer(reply: Reply, request: Any) -> Any:
        headers = [pair for pair in reply.headers if pair[0].lower() != "content-encoding"]
        if not hasattr(httpx.Response, "_prepare"):  # a version of httpx that is made differently inside
            return httpx.Response(reply.status, headers=headers or None, content=reply.body, request=request)
        # What `content=` does (headers that the reply has already, a stream made to be read at once) takes longer than the service.
        if reply.body and all(name.lower() != "content-length" for name, _ in headers):
            headers.append(("content-length", str(len(reply.body))))
        response = httpx.Response(reply.status, headers=headers, stream=httpx.ByteStream(reply.body), request=request)
        response._content = reply.body
        response.is_closed = response.is_stream_consumed = True
        return response

    async def handle_async_request(self: Any, request: Any) -> Any:
        inside = world()
        if inside is None:
            return await real_async(self, request)
        host, dialect, timeout_s = asked(inside, request)
        sent = _request(request, await request.aread())
        return answer(await inside.call(**_arguments(inside, host, sent, dialect, timeout_s)), request)

    def handle_request(self: Any, request: Any) -> Any:
        inside = world()
        if inside is None:
            return real_sync(self, request)
        host, dialect, timeout_s = asked(inside, request)
        sent = _request(request, request.read())
        arguments = _arguments(inside, host, sent, dialect, timeout_s)
        _inline(host, sent, arguments)
        return answer(inside.call_blocking(**arguments), request)

    _put(stack, httpx.AsyncHTTPTransport, "handle_async_request", handle_async_request)
    _put(stack, httpx.HTTPTransport, "handle_request", handle_request)
    for transport in (httpx.AsyncHTTPTransport, httpx.HTTPTransport):
        _put(stack, transport, "__init__", _without_pool(world, transport.__init__))
    client: Any = getattr(httpx, "_client", None)
    if hasattr(client, "get_environment_proxies"):
        real_proxies = client.get_environment_proxies
        _put(stack, client, "get_environment_proxies", lambda: real_proxies() if world() is None else {})  # no proxies in here
    _put(stack, httpx.AsyncHTTPTransport, "aclose", _async_nothing(world, httpx.AsyncHTTPTransport.aclose))
    _put(stack, httpx.HTTPTransport, "close", _nothing(world, httpx.HTTPTransport.close))
    _put(stack, httpx.AsyncHTTPTransport, "__aexit__", _async_nothing(world, httpx.AsyncHTTPTransport.__aexit__))
    _put(stack, httpx.AsyncHTTPTransport, "__aenter__", _async_self(world, httpx.AsyncHTTPTransport.__aenter__))
    _put(stack, httpx.HTTPTransport, "__exit__", _nothing(world, httpx.HTTPTransport.__exit__))
    _put(stack, httpx.HTTPTransport, "__enter__", _self(world, httpx.HTTPTransport.__enter__))


def _request(request: Any, body: bytes) -> Request:
    return Request(request.method, str(request.url), tuple(map(_read, request.headers.raw)), body)


@lru_cache(4096)  # the same few, thousands of times
def _read(header: tuple[bytes, bytes]) -> tuple[str, str]:
    return header[0].decode("latin-1").lower(), header[1].decode("latin-1")


def _inline(host: Host, request: Request, arguments: dict[str, Any]) -> None:
    """For a caller that blocks: an answer that is a coroutine is run to its end."""
    def waited(effect: Callable[[], Any]) -> Any:
        said = effect()
        return said if isinstance(said, Reply) else run_inline(host.world, said)

    arguments["effect"] = partial(waited, partial(host.serve, request))
    arguments["variants"] = {fault: partial(waited, effect) for fault, effect in arguments["variants"].items()}


def _without_pool(world: Callable[[], worlds.World | None], real: Any) -> Any:
    """A pool loads certificates, which takes longer than ten executions, and would connect nowhere."""
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if world() is None:
            real(self, *args, **kwargs)

    return init


def _nothing(world: Callable[[], worlds.World | None], real: Any) -> Any:
    return lambda self, *args: real(self, *args) if world() is None and hasattr(self, "_pool") else None


def _self(world: Callable[[], worlds.World | None], real: Any) -> Any:
    return lambda self: real(self) if world() is None else self


def _async_nothing(world: Callable[[], worlds.World | None], real: Any) -> Any:
    async def stand_in(self: Any, *args: Any) -> None:
        if world() is None and hasattr(self, "_pool"):
            await real(self, *args)

    return stand_in


def _async_self(world: Callable[[], worlds.World | None], real: Any) -> Any:
    async def stand_in(self: Any) -> Any:
        return await real(self) if world() is None else self

    return stand_in


# ── urllib3, and requests on top of it ──


class _Urllib3:
    """How faults look to urllib3; requests turns them into its own."""

    def __init__(self, urllib3: Any, pool: Any, conn: Any, url: str) -> None:
        self._errors = urllib3.exceptions
        self._pool = pool
        self._conn = conn
        self._url = url

    def refused(self, site: str) -> Any:
        return self._errors.NewConnectionError(self._conn, f"{site}: connection refused")

    def in_doubt(self, site: str) -> Any:
        return self._errors.ProtocolError("Connection aborted.", ConnectionResetError(104, f"{site}: connection reset by peer"))

    def timed_out(self, site: str, after_s: float) -> Any:
        return self._errors.ReadTimeoutError(self._pool, self._url, f"{site}: read timed out ({after_s:g} s)")

    def throttled(self, site: str) -> Any:
        return Reply(429, body=f"{site}: too many requests".encode(), headers=[("retry-after", "1")])

    def failed(self, site: str) -> Any:
        return Reply(500, body=f"{site}: internal error".encode())

    def conflict(self, site: str) -> Any:
        return Reply(409, body=f"{site}: conflict".encode())

    def exhausted(self, site: str) -> Any:
        return self._errors.NewConnectionError(self._conn, f"{site}: no connection could be opened")


def _urllib3(stack: contextlib.ExitStack, world: Callable[[], worlds.World | None]) -> None:
    import urllib3  # noqa: PLC0415  it is imported already, or this is not reached

    pool_class: Any = urllib3.connectionpool.HTTPConnectionPool
    real = pool_class._make_request

    def _make_request(self: Any, conn: Any, method: str, url: str, body: Any = None, headers: Any = None, **settings: Any) -> Any:
        inside = world()
        if inside is None:
            return real(self, conn, method, url, body=body, headers=headers, **settings)
        dialect = _Urllib3(urllib3, self, conn, url)
        host = _host(inside, self.host)
        if host is None:
            raise urllib3.exceptions.NewConnectionError(conn, f"there is no host {self.host!r} in this universe: world.host({self.host!r}, app)")
        sent = Request(method, f"{self.scheme}://{self.host}{url}", tuple((str(k).lower(), _text(v)) for k, v in (headers or {}).items()), _body(body))
        arguments = _arguments(inside, host, sent, dialect, self._get_timeout(settings.get("timeout")).read_timeout)
        _inline(host, sent, arguments)
        reply: Reply = inside.call_blocking(**arguments)
        return urllib3.HTTPResponse(io.BytesIO(reply.body), headers=urllib3.HTTPHeaderDict(reply.headers), status=reply.status,
                                    preload_content=settings.get("preload_content", True), decode_content=False, request_method=method, request_url=url)

    _put(stack, pool_class, "_make_request", _make_request)
    https: Any = urllib3.connectionpool.HTTPSConnectionPool
    real_prepare = https._prepare_proxy

    _put(stack, https, "_prepare_proxy", lambda self, conn: real_prepare(self, conn) if world() is None else None)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _body(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode()
    if hasattr(body, "read"):
        found = body.read()
        return found if isinstance(found, bytes) else str(found).encode()
    return b"".join(body)

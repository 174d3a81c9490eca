"""Services in the universe by host name: ASGI apps, WSGI apps and plain functions, behind the simulated network.

    world.host("hotel.test", app)                       # FastAPI, Starlette, Litestar, Flask, Django: what it is is found out
    world.host("hotel.test", make=lambda: make_app(db)) # made again after a restart, which loses what was not durable
    world.host("bank.test", lambda request: Reply(200, json={"ok": True}))

httpx and requests reach them by that name (see `intercept.py`), from any process and from each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import io
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

import msgspec

from yaoki.errors import ConfigError
from yaoki.explore.process import serving
from yaoki.explore.world import World

READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Request(msgspec.Struct, frozen=True):
    """What arrives at a host. headers: names in lower case, in order of sending."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def path(self) -> str:
        return urlsplit(self.url).path or "/"

    @property
    def query(self) -> str:
        return urlsplit(self.url).query

    def header(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.headers if key == name.lower()), default)

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Reply:
    """What a host answers. Give `json` or `body`."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int = 200, *, json: Any = msgspec.UNSET, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()) -> None:
        self.status = status
        self.headers = list(headers)
        self.body = body
        if json is not msgspec.UNSET:
            self.body = msgspec.json.encode(json)
            self.headers.append(("content-type", "application/json"))

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:200]!r}"


class Host:
    """One service by host name.

    Args:
        app: an ASGI app, a WSGI app, or a function from `Request` to `Reply` (or to anything JSON-able).
        make: makes the app, at the start and after each restart.
        lifespan: does its server run an ASGI app's start-up?
    """

    def __init__(self, world: World, name: str, app: Any = None, make: Callable[[], Any] | None = None, *, lifespan: bool = True) -> None:
        if (app is None) == (make is None):
            raise ConfigError(f"host {name!r} needs an app or a function that makes one", do="world.host(name, app), or make=...")
        self.world = world
        self.name = name
        self._make = make
        self.app = app if make is None else make()
        self.kind = kind_of(self.app)
        self._log = hashlib.blake2b(digest_size=16)
        self._lifespan = lifespan
        self._started = not lifespan
        self._state: dict[str, Any] = {}

    def lose_memory(self) -> None:
        """Restart: what the app kept in memory is gone, if it can be made again."""
        if self._make is not None:
            self.app = self._make()
            self._started = not self._lifespan

    def digest(self) -> Any:
        """A deterministic service is what its requests made of it."""
        return self._log.hexdigest()

    def serve(self, request: Request) -> Any:
        """Answer: a `Reply`, or a coroutine of one."""
        self._log.update(f"{request.method} {request.url} {request.header('idempotency-key')}\0".encode() + request.body)
        note = self.world.notes is not None
        if self.kind == "asgi":
            return self._asgi(request, note=note)
        answering = serving.set(self.name)
        try:
            reply = wsgi(self.app, request) if self.kind == "wsgi" else _plain(self.app, request)
        finally:
            serving.reset(answering)
        if note:
            self.world.note(self.name, f"● {request.method} {request.path}: {reply.status}")
        return reply

    async def _asgi(self, request: Request, *, note: bool) -> Reply:
        serving.set(self.name)  # the coroutine has a context of its own
        if not self._started:
            self._started = True
            await self._start()
        reply = await asgi(self.app, request, self._state)
        if note:
            self.world.note(self.name, f"● {request.method} {request.path}: {reply.status}")
        return reply

    async def _start(self) -> None:
        """The lifespan protocol, for apps that speak it: wait for the start-up, and leave it running."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "lifespan.startup"}
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # the shutdown that never comes

        async def send(message: Mapping[str, Any]) -> None:
            if not ready.done():
                ready.set_result(None)
            if message["type"] == "lifespan.startup.failed":
                self.world.break_("service_starts", f"{self.name} does not start: {message.get('message', '')}")

        async def live() -> None:
            try:
                await self.app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": self._state}, receive, send)
            except Exception as error:  # an app that does not speak the protocol may raise
                self.world.note(self.name, f"no lifespan: {error!r}")
            finally:
                if not ready.done():
                    ready.set_result(None)

        asyncio.get_running_loop().create_task(live(), name=f"{self.name} lifespan")
        await ready


def kind_of(app: Any) -> str:
    """asgi, wsgi or plain, by how it is called.

    Raises:
        ConfigError: it cannot be called.
    """
    try:
        return _kinds[app]
    except (KeyError, TypeError):
        kind = _kind_of(app)
    with contextlib.suppress(TypeError):  # an app that cannot be referred to weakly, or hashed
        _kinds[app] = kind
    return kind


# An app that is made once is put into a universe a thousand times a second.
_kinds: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _kind_of(app: Any) -> str:
    if not callable(app):
        raise ConfigError(f"{app!r} is no app", do="give an ASGI or WSGI app, or a function from Request to Reply")
    call = app if inspect.isroutine(app) else type(app).__call__
    needed = [each for each in inspect.signature(app).parameters.values()
              if each.default is each.empty and each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}]
    if len(needed) == 3 and (inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(app)):
        return "asgi"
    return "wsgi" if len(needed) == 2 else "plain"


def _plain(app: Callable[[Request], Any], request: Request) -> Reply:
    said = app(request)
    return said if isinstance(said, Reply) else Reply(200, json=said)


@lru_cache(4096)
def _parts(url: str) -> Mapping[str, Any]:
    """What ASGI says of a URL. The few that there are come thousands of times."""
    parts = urlsplit(url)
    return {"scheme": parts.scheme, "path": unquote(parts.path) or "/", "raw_path": parts.path.encode(), "query_string": parts.query.encode(),
            "server": (parts.hostname, parts.port or 80)}


@lru_cache(4096)  # the same few, thousands of times
def _sent(header: tuple[str, str]) -> tuple[bytes, bytes]:
    return header[0].encode("latin-1"), header[1].encode("latin-1")


async def asgi(app: Any, request: Request, state: dict[str, Any]) -> Reply:
    """One request to an ASGI app. What the app raises is a 500, as a server makes it."""
    reply = Reply(500)
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method, "root_path": "",
             "headers": list(map(_sent, request.headers)),
             "client": ("universe", 1), "state": dict(state), **_parts(request.url)}
    given = False
    body: list[bytes] = []

    async def receive() -> dict[str, Any]:
        nonlocal given
        if given:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # nobody hangs up
        given = True
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
        elif message["type"] == "http.response.body":
            body.append(message.get("body", b""))

    try:
        await app(scope, receive, send)
    except Exception as error:
        return Reply(500, body=f"{type(error).__name__}: {error}".encode(), headers=[("content-type", "text/plain")])
    reply.body = b"".join(body)
    return reply


def wsgi(app: Any, request: Request) -> Reply:
    """One request to a WSGI app. What the app raises is a 500, as a server makes it."""
    parts = urlsplit(request.url)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method, "SCRIPT_NAME": "", "PATH_INFO": unquote(parts.path) or "/", "QUERY_STRING": parts.query,
        "SERVER_NAME": parts.hostname or "", "SERVER_PORT": str(parts.port or 80), "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "0.0.0.0",  # noqa: S104
        "wsgi.version": (1, 0), "wsgi.url_scheme": parts.scheme, "wsgi.input": io.BytesIO(request.body), "wsgi.errors": io.StringIO(),
        "wsgi.multithread": False, "wsgi.multiprocess": False, "wsgi.run_once": False, "CONTENT_LENGTH": str(len(request.body)),
    }
    for name, value in request.headers:
        environ["CONTENT_TYPE" if name == "content-type" else f"HTTP_{name.upper().replace('-', '_')}"] = value
    reply = Reply(500)

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        del exc_info
        reply.status, reply.headers = int(status.split(" ", 1)[0]), [(name.lower(), value) for name, value in headers]
        return written.append

    written: list[bytes] = []
    try:
        chunks = app(environ, start_response)
        try:
            written.extend(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
    except Exception as error:
        return Reply(500, body=f"{type(error).__name__}: {error}".encode(), headers=[("content-type", "text/plain")])
    reply.body = b"".join(written)
    return reply


def run_inline(world: World, work: Any) -> Any:
    """Run a service's coroutine to its end for a caller that blocks, on a loop of its own that goes on with this clock."""
    outer = world.loop
    inner = outer.branch()
    world.loop = world.runtime.loop = inner
    try:
        task = inner.create_task(work, context=world.base.copy())
        task.add_done_callback(lambda _: setattr(inner, "finished", True))
        inner.run()
    finally:
        world.loop = world.runtime.loop = outer
        inner.merge_into(outer)
    return task.result()

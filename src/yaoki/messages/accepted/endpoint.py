"""What the endpoint answers, without a server: a request in, a response out.

    POST   path              202 with Location and Retry-After; the same Idempotency-Key and body: the first answer again
    GET    path/ID           the status resource; 303 is not used: the result is in it
    GET    path/ID/events    server-sent events until the work has ended

Same key, other body: 422. Under way, and asked to refuse that: 409. `Prefer: wait=5` holds the answer up to so many seconds.
Source: draft-ietf-httpapi-idempotency-key-header-07; RFC 9110 (202, Retry-After); RFC 7240 (Prefer: wait).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec

from yaoki import runtime
from yaoki.errors import ConfigError, InputError, NewerVersionError
from yaoki.messages.accepted.problem import problem
from yaoki.messages.accepted.work import Conflict, Status, Work

JSON, PROBLEM, EVENTS = "application/json", "application/problem+json", "text/event-stream"
KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")
WAIT_MOST_S = 60.0
BEAT_S = 15.0
"""Streams say something at least this often, so that proxies do not cut them."""


class Request(msgspec.Struct, frozen=True):
    """A request as both shells give it. `headers`: lower-case names. `client`: the address it came from, or ""."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    root: str = ""
    client: str = ""


class Response(msgspec.Struct):
    """An answer. `stream`: in place of `body`, for events."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None


class Answering(Protocol):
    """What can be served: an `Endpoint`, or another one that answers requests. max_body: bytes that it takes."""

    max_body: int

    async def answer(self, request: Request) -> Response: ...


class Endpoint:
    """Answers for one kind of work.

    Args:
        path: of the collection, as `/orders`.
        scope: of a request's headers, whose keys must not meet others': the tenant or user; its value is part of the id.
        max_body: bytes. max_age: seconds the oldest work may have waited before more is refused with 503; 0: no limit.
        under_way: what a repetition gets while the work is under way: `answer` (202 again) or `conflict` (409).
        require_key: refuse requests without `Idempotency-Key`.
        keep_s: how long a key is remembered, as told in `Idempotency-Retention`: the retention of the store.
    """

    def __init__(self, work: Work, *, path: str, scope: Callable[[dict[str, str]], str] = lambda _: "", max_body: int = 1_048_576,
                 max_age: float = 0.0, under_way: str = "answer", require_key: bool = False, keep_s: float = 7 * 86_400.0) -> None:
        if not path.startswith("/") or path.endswith("/") or under_way not in {"answer", "conflict"} or max_body < 1:
            raise ConfigError(f"path={path!r}, under_way={under_way!r}, max_body={max_body} cannot be",
                              do="path begins with / and does not end with it; under_way is 'answer' or 'conflict'")
        self.work = work
        self.path = path
        self.scope = scope
        self.max_body = max_body
        self.max_age = max_age
        self.under_way = under_way
        self.require_key = require_key
        self.keep_s = keep_s

    async def answer(self, request: Request) -> Response:
        """The response to one request."""
        rest = request.path.removeprefix(self.path)
        if rest in {"", "/"}:
            return await self._submit(request) if request.method == "POST" else _refused(405, "work is handed in by POST", Allow="POST")
        id_, _, tail = rest.strip("/").partition("/")
        if request.method not in {"GET", "HEAD"}:
            return _refused(405, "work is looked at by GET", Allow="GET, HEAD")
        if tail not in {"", "events"}:
            return _refused(404, f"nothing is at {request.path}")
        status = await self.work.look(id_)
        if status is None:
            return _refused(404, f"no work {id_} is known; it is forgotten {self.keep_s:g} s after it was handed in")
        if tail == "events":
            return Response(200, {"content-type": EVENTS, "cache-control": "no-store"}, stream=self._events(status))
        return self._status(await self._waited(request, status), request)

    async def _submit(self, request: Request) -> Response:
        refused = await self._refuse(request)
        if refused is not None:
            return refused
        key = request.headers.get("idempotency-key", "")
        id_ = self._id(key, self.scope(request.headers)) if key else runtime.new_id()
        try:
            is_new = await self.work.submit(id_, request.body)
        except Conflict:
            return _refused(422, f"Idempotency-Key {key!r} was used with another body", do="use a new key for new work")
        except (InputError, NewerVersionError) as error:
            return _refused(400, error.message, do=error.do)
        status = await self.work.look(id_)
        assert status is not None
        if not is_new and not status.state.is_end and self.under_way == "conflict":
            return _refused(409, "the same work is under way", do=f"look at {self._location(request, id_)}",
                            location=self._location(request, id_), retry_after="1")
        answer = self._status(await self._waited(request, status), request, code=202)
        answer.headers |= {"location": self._location(request, id_), "idempotency-retention": f"{self.keep_s:.0f}"}
        return answer

    async def _refuse(self, request: Request) -> Response | None:
        if len(request.body) > self.max_body:
            return _refused(413, f"the body has more than {self.max_body} bytes")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return _refused(415, f"the body must be {JSON}")
        key = request.headers.get("idempotency-key", "")
        if (key or self.require_key) and not KEY.match(key):
            return _refused(400, "Idempotency-Key must be 1 to 255 visible ASCII characters", do="send a UUID, say")
        if self.max_age and (age_s := await self.work.age_s()) > self.max_age:
            return _refused(503, f"the oldest work has waited {age_s:.0f} s", do="come back later", retry_after=f"{age_s:.0f}")
        return None

    @staticmethod
    def _id(key: str, scope: str) -> str:
        """The same key in the same scope is the same work; an id does not show its key."""
        return hashlib.sha256(msgspec.json.encode((scope, key))).hexdigest()[:32]

    def _location(self, request: Request, id_: str) -> str:
        return f"{request.root}{self.path}/{id_}"

    async def _waited(self, request: Request, status: Status) -> Status:
        """As long as the caller prefers, until the work has ended."""
        wanted = re.search(r"\bwait=(\d{1,4})\b", request.headers.get("prefer", ""))
        until = runtime.monotonic() + min(WAIT_MOST_S, float(wanted[1])) if wanted else 0.0
        while not status.state.is_end and (left := until - runtime.monotonic()) > 0:
            await self.work.wait_changed(min(left, 1.0))
            status = await self.work.look(status.id) or status
        return status

    def _status(self, status: Status, request: Request, *, code: int = 200) -> Response:
        headers = {"content-type": JSON, "cache-control": "no-store"}
        if not status.state.is_end:
            headers["retry-after"] = "1"
        links = {"self": self._location(request, status.id), "events": f"{self._location(request, status.id)}/events"}
        body = msgspec.to_builtins(status, builtin_types=(msgspec.Raw,)) | {"links": links}
        return Response(code, headers, msgspec.json.encode(body))

    async def _events(self, status: Status) -> AsyncIterator[bytes]:
        """One event for each change, the last one being the end."""
        said, at = b"", runtime.monotonic()
        while True:
            data = msgspec.json.encode(status)
            if data != said:
                said, at = data, runtime.monotonic()
                yield b"event: " + status.state.value.encode() + b"\ndata: " + data + b"\n\n"
            if status.state.is_end:
                return
            if runtime.monotonic() - at > BEAT_S:
                at = runtime.monotonic()
                yield b": still here\n\n"
            await self.work.wait_changed(1.0)
            status = await self.work.look(status.id) or status


def _refused(status: int, detail: str, *, do: str = "", location: str = "", retry_after: str = "", **headers: str) -> Response:
    given = {"content-type": PROBLEM} | {name.lower(): value for name, value in headers.items()}
    if location:
        given["location"] = location
    if retry_after:
        given["retry-after"] = retry_after
    return Response(status, given, problem(status, detail, do=do))

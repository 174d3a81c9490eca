"""What is answered about runs, without a server: a request in, a response out.

    POST  path                    {"saga": "book-trip", "input": {...}, "id": "trip-42"}    202 and Location
    GET   path/ID                 where the run is, its result, and what it waits for; `Prefer: wait=5` waits for its end
    POST  path/ID/signals/NAME    the answer, as JSON                     200: it counts   202: stored, not recorded yet
    POST  path/ID/cancel          {"reason": "..."}                       202
    POST  path/tokens/complete    and fail, heartbeat: see tokens.py; the token is all that is needed

Everything may be sent twice. Refusals are problem details (RFC 9457) with Yaoki's `code` and what to do:

    401, 403  not let in                         409  another answer came first; the run does not wait any more
    404       no such run, saga, or step         422  not the type that is waited for, or taken
    400       the body is not JSON               409  the id is another run's
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import msgspec

from yaoki import runtime
from yaoki.app import App
from yaoki.errors import (
    AnswerConflictError,
    ConfigError,
    InputError,
    JournalError,
    RunConflictError,
    RunNotFoundError,
    TokenError,
    TooLateError,
    UsageError,
    YaokiError,
)
from yaoki.integrations.runs.guard import Denied, Guard
from yaoki.integrations.runs.tokens import VERBS
from yaoki.messages.accepted.endpoint import JSON, PROBLEM, Request, Response
from yaoki.saga.outside.answers import answer
from yaoki.saga.outside.seen import Seen, see, settled
from yaoki.saga.records import RunState

WAIT_MOST_S = 60.0

_STATUS: tuple[tuple[type[YaokiError], int], ...] = (
    (RunNotFoundError, 404), (AnswerConflictError, 409), (TooLateError, 409), (RunConflictError, 409), (TokenError, 401), (InputError, 422),
    (UsageError, 400), (JournalError, 503), (YaokiError, 500),
)
TITLES = {400: "The request is not valid", 401: "Not let in", 403: "Not let in", 404: "There is no such thing", 405: "Not allowed here",
          409: "It is too late, or was answered otherwise", 415: "The body must be JSON", 422: "This is not what is taken here",
          500: "It failed", 503: "The journal cannot be reached"}

_RUN = re.compile(r"/(?P<run>.+?)(?:/(?P<verb>cancel)|/signals/(?P<signal>[^/]+))?\Z")


class _Start(msgspec.Struct, forbid_unknown_fields=True):
    saga: str
    input: msgspec.Raw = msgspec.Raw(b"null")
    id: str = ""


class _Cancel(msgspec.Struct, forbid_unknown_fields=True):
    reason: str = "cancelled"


class RunsEndpoint:
    """Answers for the runs of one open app. Arguments as of `runs_endpoint`."""

    def __init__(self, app: App, guard: Guard, *, path: str = "/runs", max_body: int = 1_048_576, wait_s: float = 5.0) -> None:
        if not path.startswith("/") or path.endswith("/"):
            raise ConfigError(f"path={path!r} cannot be", do="it begins with / and does not end with it")
        self.app = app
        self.guard = guard
        self.path = path
        self.max_body = max_body
        self.wait_s = wait_s

    async def answer(self, request: Request) -> Response:
        """The response to one request. Never raises for what a caller can do wrong."""
        try:
            if request.path.startswith(f"{self.path}/tokens/"):
                return await self._posted(request, lambda: self._by_token(request))
            return await self._routed(request, await self.guard.who(request))
        except Denied as denied:
            return _problem(denied.status, denied.detail, denied.do)
        except YaokiError as error:
            status = 404 if error.fields.get("unknown") else next(status for kind, status in _STATUS if isinstance(error, kind))
            return _problem(status, error.message, error.do, code=error.code, **error.fields)

    async def _routed(self, request: Request, who: str) -> Response:
        if not request.path.startswith(self.path):
            return _problem(404, f"nothing is at {request.path}", f"runs are at {self.path}")
        rest = request.path[len(self.path):]
        if rest in {"", "/"}:
            return await self._posted(request, lambda: self._start(request))
        found = _RUN.match(rest)
        if found is None:
            return _problem(404, f"nothing is at {request.path}", f"runs are at {self.path}/ID")
        run = found["run"]
        if found["signal"]:
            return await self._posted(request, lambda: self._signal(request, run, found["signal"], who))
        if found["verb"]:
            return await self._posted(request, lambda: self._cancel(request, run, who))
        if request.method not in {"GET", "HEAD"}:
            return _problem(405, f"a run is looked at by GET, not {request.method}", "", allow="GET, HEAD")
        return await self._show(request, run)

    async def _posted(self, request: Request, work: Callable[[], Awaitable[Response]]) -> Response:
        if request.method != "POST":
            return _problem(405, f"{request.path} takes POST, not {request.method}", "", allow="POST")
        # Also what keeps web pages of others out: a browser asks before it sends JSON across sites.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return _problem(415, f"the body must be {JSON}", f"send Content-Type: {JSON}")
        return await work()

    # ── what can be asked ────────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self, request: Request) -> Response:
        asked = _read(request.body, _Start)
        saga = self.app.engine.sagas.get(asked.saga)
        if saga is None:
            known = ", ".join(sorted(self.app.engine.sagas))
            raise InputError(f"there is no saga {asked.saga!r} here", do=f"name one of: {known}", unknown=True)
        try:
            value = saga.input.decode(bytes(asked.input))
        except msgspec.ValidationError as error:
            raise InputError(f"this is not what {saga.name} takes: {error}", do="correct `input`") from error
        run = await self.app.start(saga, value, id=asked.id, traceparent=request.headers.get("traceparent", ""))
        return self._said(202, await see(self.app.journal, run.id), request)

    async def _show(self, request: Request, run: str) -> Response:
        seen = await see(self.app.journal, run)
        wanted = re.search(r"\bwait=(\d{1,4})\b", request.headers.get("prefer", ""))
        if wanted is not None:
            async def look() -> bool:
                nonlocal seen
                seen = await see(self.app.journal, run)
                return seen.header.state.is_end or seen.header.state is RunState.BLOCKED

            await settled(look, min(WAIT_MOST_S, float(wanted[1])))
        return self._said(200, seen, request)

    async def _signal(self, request: Request, run: str, name: str, who: str) -> Response:
        value = _read(request.body, msgspec.Raw)
        recorded = await answer(self.app.engine, run, name, value, who=who, wait_s=self.wait_s)
        return _json(200 if recorded else 202, {"run": run, "signal": name, "recorded": recorded})

    async def _cancel(self, request: Request, run: str, who: str) -> Response:
        asked = _read(request.body or b"{}", _Cancel)
        seen = await see(self.app.journal, run)
        if not seen.header.state.is_end:
            await self.app.engine.cancel(run, reason=asked.reason, who=who)
        return self._said(202, seen, request)

    async def _by_token(self, request: Request) -> Response:
        verb = VERBS.get(request.path.rpartition("/")[2])
        if verb is None:
            return _problem(404, f"nothing is at {request.path}", f"post to {self.path}/tokens/complete, fail or heartbeat")
        try:
            recorded = await verb(self.app, request.body, self.wait_s)
        except msgspec.DecodeError as error:
            raise _unreadable(error) from error
        return _json(200 if recorded else 202, {"recorded": recorded})

    # ── saying it ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _said(self, status: int, seen: Seen, request: Request) -> Response:
        header = seen.header
        where = f"{request.root}{self.path}/{quote(header.id)}"
        said: dict[str, Any] = {
            "id": header.id, "saga": header.saga, "state": header.state, "waits_for": seen.waits_for(),
            "created_at": header.created_at, "updated_at": header.updated_at, "now": runtime.unix_time(),
            "links": {"self": where, "signals": f"{where}/signals/{{name}}"},
        }
        if header.reason:
            said["reason"] = header.reason
        if header.state is RunState.COMPLETED:
            said["result"] = msgspec.Raw(bytes(header.result) or b"null")
        response = _json(status, said)
        if status == 202:
            response.headers["location"] = where
        if not header.state.is_end:
            response.headers["retry-after"] = "1"
        return response


def _read(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise _unreadable(error) from error


def _unreadable(error: msgspec.DecodeError) -> UsageError:
    if isinstance(error, msgspec.ValidationError):
        return InputError(f"the body is not what is taken here: {error}", do="see the description of this address")
    return UsageError(f"the body is not JSON: {error}", do="send JSON")


def _json(status: int, data: Any) -> Response:
    return Response(status, {"content-type": JSON, "cache-control": "no-store"}, msgspec.json.encode(data))


def _problem(status: int, detail: str, do: str, *, allow: str = "", **more: Any) -> Response:
    body = {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status, "detail": detail, **({"do": do} if do else {}), **more}
    headers = {"content-type": PROBLEM}
    if allow:
        headers["allow"] = allow
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(status, headers, msgspec.json.encode(body))

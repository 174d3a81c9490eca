"""Steps that the world outside completes, over HTTP. The token itself is what lets the caller in, for this step and no other.

    POST  path/tokens/complete     {"token": "yk1...", "result": ...}              200: it counts   202: stored, not recorded yet
    POST  path/tokens/fail         {"token": "yk1...", "error": "...", "in_doubt": false}
    POST  path/tokens/heartbeat    {"token": "yk1...", "detail": ...}              200   409: stop, nobody waits any more

It is in the body, for addresses end up in logs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from yaoki.app import App

Say = Callable[[App, bytes, float], Awaitable[bool]]


class _Complete(msgspec.Struct, forbid_unknown_fields=True):
    token: str
    result: msgspec.Raw = msgspec.Raw(b"null")


class _Fail(msgspec.Struct, forbid_unknown_fields=True):
    token: str
    error: str
    in_doubt: bool = False


class _Beat(msgspec.Struct, forbid_unknown_fields=True):
    token: str
    detail: msgspec.Raw = msgspec.Raw(b"null")


async def _complete(app: App, body: bytes, wait_s: float) -> bool:
    said = msgspec.json.decode(body, type=_Complete)
    return await app.complete(said.token, said.result, wait=wait_s)


async def _fail(app: App, body: bytes, wait_s: float) -> bool:
    said = msgspec.json.decode(body, type=_Fail)
    return await app.fail(said.token, said.error, in_doubt=said.in_doubt, wait=wait_s)


async def _heartbeat(app: App, body: bytes, wait_s: float) -> bool:
    del wait_s
    said = msgspec.json.decode(body, type=_Beat)
    await app.heartbeat(said.token, said.detail)
    return True


VERBS: dict[str, Say] = {"complete": _complete, "fail": _fail, "heartbeat": _heartbeat}

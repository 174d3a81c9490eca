"""aiohttp's client through a `Service`: its policy around every request, and nothing else changes for the caller.

    async with session(flights, base_url="http://flights") as http:      # an aiohttp.ClientSession
        reply = await http.post("/bookings", json=...)

    aiohttp.ClientSession(middlewares=[middleware(flights)])             # or by hand (aiohttp >= 3.12)

As with httpx (`httpx.py` says it in full): one idempotency key for all attempts of a step's request; what remains of the
deadline is sent in a header; the caller gets the last answer. aiohttp's own total timeout, five minutes if nobody says,
bounds all attempts together. aiohttp itself sends an idempotent request again when a kept connection turns out to be
closed; `session` switches that off, because the policy's retry and budget decide here.
"""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse
from aiohttp.payload import BytesPayload, Payload

from yaoki.integrations.http_calls import AnswerError, check, hand_on_deadline, prepare
from yaoki.policies import scope
from yaoki.policies.deadline import HEADER
from yaoki.service import Service


class _Seen:
    """An answer, in the words of the other clients."""

    __slots__ = ("headers", "response", "status_code")

    def __init__(self, response: ClientResponse) -> None:
        self.response = response
        self.status_code = response.status
        self.headers = response.headers


def _check(response: ClientResponse) -> None:
    check(_Seen(response))


def _read_once(body: Any) -> bool:
    """Can the body be sent only once? Bytes, text and JSON can be sent again; files and streams may not be."""
    return isinstance(body, Payload) and not isinstance(body, BytesPayload)


def middleware(service: Service, *, deadline_header: str | None = HEADER) -> ClientMiddlewareType:
    """A client middleware that sends every request through `service`.

    Args:
        deadline_header: carries the milliseconds that remain; None: is not sent.
    """
    async def through(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        idempotent = prepare(request.method, request.headers)
        answers: list[ClientResponse] = []

        async def attempt() -> ClientResponse:
            hand_on_deadline(request.headers, None, deadline_header)
            response = await handler(request)
            answers.append(response)
            return response

        returned: ClientResponse | None = None
        try:
            with scope.repeated(_read_once(request.body)):
                returned = await service.call(attempt, idempotent=idempotent, operation=f"{request.method} {request.url.path}", check=_check)
        except AnswerError as error:
            returned = error.response.response
        finally:
            for answer in answers:
                if answer is not returned:
                    answer.release()
        assert returned is not None, "a call returns an answer or raises"
        return returned

    return through


def session(service: Service, *, deadline_header: str | None = HEADER, **settings: Any) -> aiohttp.ClientSession:
    """An `aiohttp.ClientSession` all of whose requests go through `service`; `settings` are aiohttp's own."""
    outer = settings.pop("middlewares", ())
    made = aiohttp.ClientSession(middlewares=(*outer, middleware(service, deadline_header=deadline_header)), **settings)
    made._retry_connection = False  # noqa: SLF001 - there is no public switch
    return made

"""requests through a `Service`: its policy around every request, and nothing else changes for the caller.

    http = session(flights)                                    # a requests.Session
    reply = http.post("http://flights/bookings", json=...)

    http = requests.Session()
    http.mount("http://flights/", Adapter(flights))            # or by hand, for some addresses only

As with httpx (`httpx.py` says it in full): one idempotency key for all attempts of a step's request; what remains of the
deadline is sent and bounds the timeouts of requests; the caller gets the last answer, of which
`response.extensions["yaoki_attempts"]` counts the attempts. The adapter takes the place of urllib3's `Retry`, which is
switched off: two of them would multiply. A redirect is a request of its own.
"""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from yaoki.errors import ConfigError
from yaoki.integrations.http_calls import AnswerError, check, hand_on_deadline, may_have_happened, prepare
from yaoki.policies import scope
from yaoki.policies.classify import attempts_made, classify
from yaoki.policies.deadline import HEADER
from yaoki.service import Service


class _Call:
    """One request on its way: what is the same for all its attempts, and what became of the earlier ones."""

    def __init__(self, request: requests.PreparedRequest, deadline_header: str | None) -> None:
        self.request = request
        self.deadline_header = deadline_header
        self.idempotent = prepare(request.method or "", request.headers)
        self.operation = f"{request.method} {request.path_url.partition('?')[0]}"
        # A file or a generator is read by the first attempt.
        self.once = not isinstance(request.body, bytes | str | None)
        self.in_doubt = False
        self.answers: list[requests.Response] = []

    def timeouts(self, given: Any) -> Any:
        """The connect and read timeouts of an attempt, within what remains of the deadline."""
        connect, read = given if isinstance(given, tuple) else (given, given)
        limits = hand_on_deadline(self.request.headers, {"connect": connect, "read": read}, self.deadline_header)
        return limits["connect"], limits["read"]

    def begin(self) -> None:
        """Another attempt begins: what the answers so far say about whether it happened."""
        for answer in self.answers:
            self.in_doubt = self.in_doubt or answer.status_code < 400 or may_have_happened(answer)

    def answered(self, response: requests.Response) -> requests.Response:
        self.answers.append(response)
        # `classify` looks for it here, as it does in httpx's responses: an earlier attempt may have done it.
        response.extensions = {"yaoki_in_doubt": True} if self.in_doubt else {}  # type: ignore[attr-defined]
        return response

    def end(self, returned: requests.Response | None) -> None:
        """Close the answers that nobody will read."""
        for answer in self.answers:
            if answer is not returned:
                answer.close()


class Adapter(HTTPAdapter):
    """A transport adapter whose every request goes through `service`.

    Args:
        deadline_header: carries the milliseconds that remain; None: is not sent.
        settings: `HTTPAdapter`'s own (`pool_maxsize`, ...), all but `max_retries`.
    """

    def __init__(self, service: Service, *, deadline_header: str | None = HEADER, **settings: Any) -> None:
        if settings.pop("max_retries", 0):
            raise ConfigError("Adapter() got max_retries=: retries inside the policy's retries would multiply.",
                              do="Leave it out; put retry(...) into the service's policy.")
        super().__init__(max_retries=0, **settings)
        self._service = service
        self._deadline_header = deadline_header

    def send(self, request: requests.PreparedRequest, stream: bool = False, timeout: Any = None, verify: Any = True,  # noqa: FBT001, FBT002, PLR0917
             cert: Any = None, proxies: Any = None) -> requests.Response:
        call, send = _Call(request, self._deadline_header), super().send

        def attempt() -> requests.Response:
            call.begin()
            limits = call.timeouts(timeout)
            try:
                return call.answered(send(request, stream=stream, timeout=limits, verify=verify, cert=cert, proxies=proxies))
            except Exception as error:
                call.in_doubt = call.in_doubt or classify(error).happened is not False
                raise

        response: requests.Response | None = None
        try:
            with scope.repeated(call.once):
                response = self._service.call(attempt, idempotent=call.idempotent, operation=call.operation, check=check)
        except AnswerError as error:
            error.response.extensions["yaoki_attempts"] = attempts_made(error)
            response = error.response
        finally:
            call.end(response)
        assert response is not None, "a call returns an answer or raises"
        return response


def session(service: Service, *, deadline_header: str | None = HEADER, **settings: Any) -> requests.Session:
    """A `requests.Session` all of whose requests go through `service`."""
    made = requests.Session()
    for prefix in ("http://", "https://"):
        made.mount(prefix, Adapter(service, deadline_header=deadline_header, **settings))
    return made

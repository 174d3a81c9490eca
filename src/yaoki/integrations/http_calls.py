"""What every HTTP client integration does around a request, whatever the client: headers, idempotency, statuses, time."""

from __future__ import annotations

import functools
from collections.abc import MutableMapping
from math import inf
from typing import Any

from yaoki import effect
from yaoki.policies.classify import Failure, classify
from yaoki.policies.deadline import HEADER, encode_ms
from yaoki.policies.protocols import IDEMPOTENT_METHODS
from yaoki.policies.scope import remaining

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, section 9.2.1: they change nothing, so they need no key
KEY_HEADER = "Idempotency-Key"  # draft-ietf-httpapi-idempotency-key-header


class AnswerError(Exception):
    """A response that the policy shall take for a failure. It never leaves the integration: the caller gets the response."""

    def __init__(self, response: Any, failure: Failure) -> None:
        super().__init__(f"{response.status_code}")
        self.response = response
        self.failure = failure


classify.register(AnswerError, lambda error: error.failure)


@functools.lru_cache(maxsize=600)
def _kind_of(status: int) -> type[AnswerError]:
    """A type for each status, so that events and the history of a retry say "HTTP503" and not always the same."""
    return type(f"HTTP{status}", (AnswerError,), {})


def check(response: Any) -> None:
    """Raise `AnswerError` for an answer that may be worth a retry, or speaks against the service; let the others pass."""
    if response.status_code < 400:
        return
    failure = classify.http(response.status_code, response.headers)
    if failure.kind != "permanent":
        raise _kind_of(response.status_code)(response, failure)


def may_have_happened(response: Any) -> bool:
    """Could the request have been carried out, for all that this answer says?"""
    return classify.http(response.status_code, response.headers).happened is not False


def prepare(method: str, headers: MutableMapping[str, str]) -> bool:
    """Once for all attempts: add the idempotency key and trace context of the saga step under way.

    Returns whether the request may be repeated: by its method, or because it has a key.
    """
    under_way = effect.current.get()
    if under_way is not None:
        if method not in SAFE_METHODS and KEY_HEADER not in headers:
            headers[KEY_HEADER] = under_way.next_key()
        if under_way.traceparent and "traceparent" not in headers:
            headers["traceparent"] = under_way.traceparent
    return method in IDEMPOTENT_METHODS or KEY_HEADER in headers


def hand_on_deadline(headers: MutableMapping[str, str], timeouts: dict[str, float | None] | None,
                     name: str | None = HEADER) -> dict[str, float | None]:
    """Before each attempt: say in the headers how long we wait, and let no timeout of the client's be longer.

    Args:
        timeouts: seconds by kind (connect, read, ...), None where there is none.
        name: the header; None: say nothing.
    """
    left_s = remaining()
    if left_s == inf:
        return dict(timeouts or {})
    text = encode_ms(left_s)
    if name is not None and text is not None:
        headers[name] = text
    kinds = timeouts or dict.fromkeys(("connect", "read", "write"))
    bounded = {kind: left_s if limit is None else min(limit, left_s) for kind, limit in kinds.items()}
    # No pool timeout: it makes httpx's pool lose a connection, and the caller is bounded without it. See `carry.py`.
    return {**bounded, "pool": None}

"""Errors as `application/problem+json`. Source: RFC 9457."""

from __future__ import annotations

import msgspec

TITLES = {
    400: "The request is not valid", 404: "There is no such work", 405: "The method is not allowed here",
    409: "The same work is under way", 413: "The body is too large", 415: "The body must be JSON",
    422: "The key was used with another body", 503: "Too much work waits",
}


def problem(status: int, detail: str, *, do: str = "", **more: object) -> bytes:
    """The body of an error. `do`: what the caller does next."""
    body: dict[str, object] = {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status, "detail": detail}
    if do:
        body["do"] = do
    return msgspec.json.encode(body | more)

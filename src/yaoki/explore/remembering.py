"""What HTTP clients work out again for each request although nothing has changed, remembered for the length of an exploration.

The same few URLs are taken apart some ten thousand times a second. Only functions whose answer depends on nothing but their
arguments are remembered, and only their answers that cannot change; what a client does with them is its own code.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

# URLs of an exploration, many times over; beyond that the oldest are forgotten.
MOST = 4096


def install(stack: contextlib.ExitStack, httpx: Any) -> None:
    """Spare `httpx` (or a twin of it) what it needs not do twice, until `stack` closes. What it has renamed since is left alone."""
    parsing = getattr(httpx, "_urlparse", None)
    if parsing is not None and hasattr(parsing, "urlparse"):
        remembered = _remembered(parsing.urlparse)
        _put(stack, parsing, "urlparse", remembered)
        urls = getattr(httpx, "_urls", None)  # has imported the name
        if urls is not None and hasattr(urls, "urlparse"):
            _put(stack, urls, "urlparse", remembered)
    headers = httpx.Headers({"a": "b"})
    if isinstance(getattr(httpx.Headers, "encoding", None), property) and {"_list", "_encoding"} <= vars(headers).keys():
        _put(stack, httpx.Headers, "encoding", _known_at_once(httpx.Headers.encoding))
    if hasattr(httpx.Cookies, "extract_cookies"):
        _put(stack, httpx.Cookies, "extract_cookies", _if_there_are_any(httpx.Cookies.extract_cookies))


def _remembered(parse: Callable[..., Any]) -> Callable[..., Any]:
    """Its answers are named tuples of strings."""
    ask = lru_cache(MOST)(parse)

    @wraps(parse)
    def stand_in(url: str = "", **kwargs: Any) -> Any:
        try:
            return ask(url, **kwargs)
        except TypeError:  # what cannot be hashed is for the real one to judge
            return parse(url, **kwargs)

    return stand_in


def _known_at_once(encoding: Any) -> property:
    """Headers are nearly always ASCII, which one look at all of them tells; the real one decodes each."""
    def stand_in(headers: Any) -> str:
        if headers._encoding is None and b"".join([name + value for name, _, value in headers._list]).isascii():
            headers._encoding = "ascii"
        return encoding.fget(headers)  # type: ignore[no-any-return]

    return property(stand_in, encoding.fset, encoding.fdel, encoding.__doc__)


def _if_there_are_any(extract: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Without a `Set-Cookie` a jar makes two objects of the standard library's, takes a lock and finds nothing."""
    @wraps(extract)
    def stand_in(cookies: Any, response: Any) -> None:
        headers = response.headers
        if "set-cookie" in headers or "set-cookie2" in headers:
            extract(cookies, response)

    return stand_in


def _put(stack: contextlib.ExitStack, holder: Any, name: str, value: Any) -> None:
    stack.callback(setattr, holder, name, getattr(holder, name))
    setattr(holder, name, value)

"""Text on a terminal: how wide it is, cut to a width, made harmless; numbers that can be read, and what a word was meant to be, and what nobody may read."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable


def cut(text: str, size: int) -> str:
    """`text` in at most `size` terminal columns, with an ellipsis where something is left out."""
    if columns_of(text) <= size:
        return text
    kept, used = [], 0
    for char in text:
        used += columns_of(char)
        if used > size - 1:
            break
        kept.append(char)
    return "".join(kept) + "…"


def columns_of(text: str) -> int:
    """Terminal columns that `text` takes: East Asian wide characters take two, combining ones none (UAX 11)."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def printable(text: str) -> str:
    """On one line and without control characters: what a user stored must not be able to drive the terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "␤" if c == "\n" else "�" for c in text)


def without_password(url: str) -> str:
    """A URL as it may be printed, logged or stored: `postgresql://me:***@host/trips`. Also passwords given as a parameter."""
    hidden = re.sub(r"^([\w+.-]+://[^/?#@:]*):[^/?#]*@", r"\1:***@", url)
    return re.sub(r"(?i)([?&](?:password|passwd|pwd|secret|token|sslpassword)=)[^&#]*", r"\1***", hidden)


def grouped(number: float) -> str:
    """A whole number with its thousands apart: 1 000 000 (ISO 80000-1 asks for a thin space; terminals have none)."""
    return f"{number:,.0f}".replace(",", " ")


def counted(number: float, one: str, many: str) -> str:
    """`1 run`, `2 000 runs`."""
    return f"{grouped(number)} {one if number == 1 else many}"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` was probably meant to be, or ""; letters in another order count as near (`bd` for `db`)."""
    words = list(known)
    close = difflib.get_close_matches(word, words, 1)
    return close[0] if close else next((each for each in words if sorted(each) == sorted(word)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'runs'?`, or "" where nothing is near."""
    found = nearest(word, known)
    return f"; did you mean {found!r}?" if found else ""

"""Text on a terminal: how wide it is, cut to a width, made harmless; and numbers that can be read."""

from __future__ import annotations

import unicodedata


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


def grouped(number: float) -> str:
    """A whole number with its thousands apart: 1 000 000 (ISO 80000-1 asks for a thin space; terminals have none)."""
    return f"{number:,.0f}".replace(",", " ")

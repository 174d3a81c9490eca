"""What a command prints: text for people, or JSON Lines for programs, never a mixture of both.

Results go to stdout; remarks and errors go to stderr, so that a pipe carries results only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

import click

from yaoki.cli.frame.tables import Cell, Column, layout

# Wider lines than this are hard to follow by eye, also on wide screens.
MAX_WIDTH = 160


class Output:
    """Where one command's words go.

    Attributes:
        json: was `--json` given?
        color: may colours be used on stdout?
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.color = wants_color(sys.stdout)

    @property
    def terminal_width(self) -> int | None:
        """Columns of the terminal, or None when nobody looks at one and nothing need be cut."""
        if not is_terminal(sys.stdout):
            return None
        import shutil

        return min(shutil.get_terminal_size().columns, MAX_WIDTH)

    def emit(self, data: Any) -> None:
        """With `--json`, print `data` as one line of JSON."""
        if self.json:
            click.echo(to_json(data))

    def say(self, text: str = "") -> None:
        """Without `--json`, print a line for people."""
        if not self.json:
            click.echo(text, color=self.color)

    def remark(self, text: str) -> None:
        """Without `--json`, print a line for people on stderr: what is worth knowing and is no result."""
        if not self.json:
            click.echo(text, err=True, color=wants_color(sys.stderr))

    def table(self, columns: Sequence[str | Column], rows: Iterable[Sequence[Cell | str | int | None]]) -> None:
        """Without `--json`, print rows under headings; nothing if there are none. The last column gives way where the terminal is narrow."""
        found = list(rows)
        if self.json or not found:
            return
        for line in layout(columns, found, width=self.terminal_width):
            click.echo(line, color=self.color)


def output() -> Output:
    """The output of the command under way. Outside of one (a test calls a function): plain text."""
    context = click.get_current_context(silent=True)
    return Output() if context is None else context.find_root().ensure_object(Output)


def to_json(data: Any) -> str:
    """One line of JSON. Paths, enums, dataclasses and msgspec Structs are understood."""
    import msgspec

    return msgspec.json.encode(data, enc_hook=str).decode()


def is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def wants_color(stream: IO[str]) -> bool:
    """Source: no-color.org, force-color.org; any non-empty value counts, and NO_COLOR wins."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"

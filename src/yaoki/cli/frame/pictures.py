"""Pictures of graphs on the command line: the formats, the terminal's colours, and writing into a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from yaoki.cli.frame.output import Output
    from yaoki.saga.drawing import Look
    from yaoki.saga.graph import Graph

FORMATS = ("terminal", "mermaid", "dot", "svg")

# Columns to assume where nobody looks at a terminal: as wide as a README shows.
PIPED = 100

TONES: dict[str, dict[str, Any]] = {
    "good": {"fg": "green"}, "bad": {"fg": "red", "bold": True}, "busy": {"fg": "yellow"}, "gone": {"fg": "bright_black"},
    "idle": {"dim": True}, "sub": {"dim": True}, "line": {"dim": True}, "plain": {},
}


def picture(graph: Graph, looks: Sequence[Look] | None, form: str, *, down: bool | None = None,
            out: Output | None = None) -> str:
    """The graph in one of `FORMATS`; on the terminal with colours where `out` has them."""
    from yaoki.saga import drawing

    if form == "terminal":
        width = (out.terminal_width if out else None) or PIPED
        return drawing.boxes(graph, looks, width=width, paint=paint if out and out.color else None, down=down)
    draw = {"mermaid": drawing.mermaid, "dot": drawing.dot, "svg": drawing.svg}[form]
    return draw(graph, looks)


def paint(text: str, tone: str) -> str:
    how = TONES[tone]
    return click.style(text, **how) if how else text


def ready_for(path: Path) -> None:
    """Raises the system's error now, and not after the work, if the file cannot be written; leaves what is there as it is."""
    there = path.exists()
    with path.open("a", encoding="utf-8"):
        pass
    if not there:
        path.unlink()


def save(path: Path, text: str) -> None:
    path.write_text(text if text.endswith("\n") else text + "\n", "utf-8")

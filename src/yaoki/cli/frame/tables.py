"""Rows as aligned text. A decider: width in, lines out.

Written here and not with a drawing library, because most commands print one table and should start at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import click

from yaoki.text import columns_of, cut, printable

GAP = "  "
# What the last column keeps on a narrow terminal, before the line is allowed to wrap.
LEAST = 12


class Cell(NamedTuple):
    """Text with a colour (a name that `click.style` knows), or dimmed."""

    text: str
    color: str = ""
    dim: bool = False


class Column(NamedTuple):
    title: str
    right: bool = False


def layout(columns: Sequence[str | Column], rows: Iterable[Sequence[Cell | str | int | None]], *,
           width: int | None = None) -> list[str]:
    """The table as lines, with ANSI colours. None and "" are shown as a dim "-"; numbers are aligned to the right.

    Args:
        width: columns of the terminal; the last column is cut with an ellipsis to fit. None: nothing is cut.
    """
    heads = [column if isinstance(column, Column) else Column(column) for column in columns]
    table = [[_cell(value) for value in row] for row in rows]
    right = [head.right or _numeric(table, number) for number, head in enumerate(heads)]
    sizes = [max([columns_of(head.title), *(columns_of(row[number].text) for row in table)]) for number, head in enumerate(heads)]
    if width is not None:
        before = sum(sizes[:-1]) + len(GAP) * (len(sizes) - 1)
        sizes[-1] = min(sizes[-1], max(width - before, LEAST))
    titles = [Cell(head.title, dim=True) for head in heads]
    return [_line(cells, sizes, right) for cells in [titles, *table]]


def _cell(value: Cell | str | int | None) -> Cell:
    if value is None or value == "":
        return Cell("-", dim=True)
    return value if isinstance(value, Cell) else Cell(str(value))


def _numeric(table: list[list[Cell]], number: int) -> bool:
    texts = [row[number].text for row in table if row[number].text != "-"]
    return bool(texts) and all(text.replace(",", "").replace(".", "", 1).isdigit() for text in texts)


def _line(cells: Sequence[Cell], sizes: Sequence[int], right: Sequence[bool]) -> str:
    parts = []
    for number, (cell, size) in enumerate(zip(cells, sizes, strict=True)):
        text = cut(printable(cell.text), size)
        room = " " * (size - columns_of(text))
        styled = click.style(text, fg=cell.color or None, dim=cell.dim or None)
        last = number == len(sizes) - 1
        parts.append(room + styled if right[number] else styled if last else styled + room)
    return GAP.join(parts)

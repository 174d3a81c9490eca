"""Draw a saga: boxes on the terminal, Mermaid, DOT or SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from yaoki.cli.frame import output
from yaoki.cli.frame.pictures import FORMATS, picture, save

if TYPE_CHECKING:
    from yaoki.saga.graph import Graph


@click.command(epilog="\b\nExamples:\n  yk graph trips:book_trip\n  yk graph trips.py --format svg -o trip.svg\n"
                      "  yk graph trips:book_trip --format dot | dot -Tpng > trip.png")
@click.argument("target", metavar="MODULE:SAGA")
@click.option("--format", "form", type=click.Choice(FORMATS), default="terminal", show_default=True, help="What to draw.")
@click.option("-o", "--output", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write it into this file.")
@click.option("--down/--across", default=None, help="From top to bottom, or from left to right, instead of what fits.")
def command(*, target: str, form: str, file: Path | None, down: bool | None) -> None:
    """Draw a saga: boxes on the terminal, Mermaid, DOT or SVG.

    Steps in one column (or row) may run side by side. SAGA may be left out where the module has only one.
    """
    from yaoki.cli.frame.target import load_saga

    saga = load_saga(target)
    out = output()
    out.emit(as_data(saga.graph))
    if file is not None:
        save(file, picture(saga.graph, None, form, down=down))
        out.remark(f"wrote {file}")
    elif form == "terminal":
        out.say(click.style(saga.name, bold=True) + click.style(f"  {len(saga.graph)} steps, hash {saga.graph.hash}", dim=True))
        out.say()
        out.say(picture(saga.graph, None, form, down=down, out=out))
        from yaoki.saga.drawing.look import legend

        if meaning := legend(saga.graph):
            out.say("\n" + click.style(meaning, dim=True))
    else:
        out.say(picture(saga.graph, None, form).rstrip("\n"))


def as_data(graph: Graph) -> dict[str, object]:
    """A graph for programs."""
    return {"saga": graph.saga, "hash": graph.hash, "steps": [
        {"name": node.name, "needs": [graph.names[need] for need in graph.needs[number]], "takes": node.takes, "gives": node.gives,
         "undo": node.undo, "pivot": node.pivot} for number, node in enumerate(graph.nodes)]}

"""A graph as SVG: the same layout as the boxes on a terminal, with curves for lines.

Colours are attributes, so that the picture can stand in a page whose content security policy forbids inline styles; with
`standalone=True` a style sheet is added that follows the reader's light or dark mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from yaoki.saga.drawing.layers import Layered
from yaoki.saga.drawing.look import Look, plain_looks
from yaoki.saga.drawing.palette import DARK, LIGHT, PAPER
from yaoki.saga.drawing.placing import place
from yaoki.saga.graph import Graph
from yaoki.text import columns_of

# Pixels. Widths of characters are those of common sans-serif fonts, rounded up: a box is rather too wide than too narrow.
TITLE, SUB = 8.2, 6.9
PADDING, MARGIN = 16, 20
TALL = {1: 38, 2: 54}
BETWEEN, GAP = 26, 72
FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Noto Sans CJK JP', sans-serif"


def svg(graph: Graph, looks: Sequence[Look] | None = None, *, standalone: bool = True, title: str = "") -> str:
    """The picture as one `<svg>` element.

    Args:
        looks: what each step's box says, by number; by default what its definition says.
        standalone: as a file of its own: with background, and light or dark by the reader's choice.
        title: for those who hear the picture; by default the saga and its steps.
    """
    looks = plain_looks(graph) if looks is None else looks
    picture = _Picture(Layered(graph.needs), looks)
    spoken = title or f"saga {graph.saga}: {', '.join(graph.names)}"
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{picture.width}" height="{picture.height}" '
            f'viewBox="0 0 {picture.width} {picture.height}" role="img" font-family="{FONT}">')
    parts = [head, f"<title>{escape(spoken)}</title>"]
    if standalone:
        parts += [_STYLE, f'<rect class="paper" width="100%" height="100%" fill="{PAPER[0]}"/>']
    return "\n".join([*parts, *picture.lines(), *picture.boxes(), "</svg>"]) + "\n"


class _Picture:
    def __init__(self, graph: Layered, looks: Sequence[Look]) -> None:
        self.graph = graph
        self.looks = looks
        self.wide = [_width(look) for look in looks]
        self.tall = [TALL[2 if look.sub else 1] for look in looks]
        points = [0] * (len(graph.needs) - graph.size)
        before = [*(tall // 2 for tall in self.tall), *points]
        after = [*(tall - tall // 2 for tall in self.tall), *points]
        self.y = [value + MARGIN for value in place(graph, before, after, gap=BETWEEN)]
        self.height = 2 * MARGIN + max((self.y[v] - MARGIN + after[v] for layer in graph.layers for v in layer), default=0)
        self.left: list[int] = []
        self.right: list[int] = []
        x = MARGIN
        for layer in graph.layers:
            widest = max(self.wide[v] for v in layer if v < graph.size)
            self.left.append(x)
            self.right.append(x + widest)
            x += widest + GAP
        self.width = (self.right[-1] if self.right else 0) + MARGIN
        self.layer_of = {v: number for number, layer in enumerate(graph.layers) for v in layer}

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def lines(self) -> list[str]:
        line = LIGHT["plain"].line
        found = [f'<g class="edges" fill="none" stroke="{line}" stroke-width="1.5">']
        ends = []
        for source, target in self.graph.edges:
            found.append(f'<path d="{self._path(source, target)}"/>')
            x, y = self.left[self.layer_of[target]], self.y[target]
            ends.append(f"M{x - 1} {y}l-9 -4.5v9z")
        return [*found, "</g>", f'<path class="heads" fill="{line}" d="{"".join(dict.fromkeys(ends))}"/>']

    def _path(self, source: int, target: int) -> str:
        """Curves from layer to layer, straight through the layers that the edge only passes."""
        way = self._way(source, target)
        x, y = self.left[self.layer_of[source]] + self.wide[source], self.y[source]
        path = f"M{x} {y}"
        if x < self.right[self.layer_of[source]]:
            x = self.right[self.layer_of[source]]
            path += f"H{x}"
        for vertex in way:
            layer = self.layer_of[vertex]
            end = self.left[layer] - (8 if vertex == target else 0)
            middle = (x + end) // 2
            path += f"C{middle} {y} {middle} {self.y[vertex]} {end} {self.y[vertex]}" if self.y[vertex] != y else f"H{end}"
            x, y = (end if vertex == target else self.right[layer]), self.y[vertex]
            path += "" if vertex == target else f"H{x}"
        return path

    def _way(self, source: int, target: int) -> list[int]:
        """The points of an edge, and its target."""
        way = [target]
        need = self._need_towards(source, target)
        while need != source:
            way.append(need)
            (need,) = self.graph.needs[need]
        return way[::-1]

    def _need_towards(self, source: int, target: int) -> int:
        for need in self.graph.needs[target]:
            at = need
            while at >= self.graph.size:
                (at,) = self.graph.needs[at]
            if at == source:
                return need
        raise AssertionError((source, target))

    # ── boxes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def boxes(self) -> list[str]:
        return [self._box(v) for layer in self.graph.layers for v in layer if v < self.graph.size]

    def _box(self, vertex: int) -> str:
        look, ink = self.looks[vertex], LIGHT[self.looks[vertex].tone]
        x, y = self.left[self.layer_of[vertex]], self.y[vertex] - self.tall[vertex] // 2
        wide, tall = self.wide[vertex], self.tall[vertex]
        dash = ' stroke-dasharray="5 4"' if look.tone == "gone" else ""
        thick, round_ = (3, 3) if look.pivot else (1.5, 9)
        text = self._text(x, y + 24, look.title, f'fill="{ink.text}" font-size="14" font-weight="600"')
        if look.sub:
            text += self._text(x, y + 41, look.sub, f'fill="{ink.text}" font-size="12"')
        return (f'<g class="step {look.tone}"><rect x="{x}" y="{y}" width="{wide}" height="{tall}" rx="{round_}" '
                f'fill="{ink.fill}" stroke="{ink.line}" stroke-width="{thick}"{dash}/>{text}</g>')

    @staticmethod
    def _text(x: int, y: int, text: str, how: str) -> str:
        return f'<text x="{x + PADDING}" y="{y}" {how}>{escape(text)}</text>'


def _width(look: Look) -> int:
    return round(max(columns_of(look.title) * TITLE, columns_of(look.sub) * SUB)) + 2 * PADDING


def _style() -> str:
    rules = [f".paper{{fill:{PAPER[1]}}}", f".edges{{stroke:{DARK['plain'].line}}}", f".heads{{fill:{DARK['plain'].line}}}"]
    for tone, ink in DARK.items():
        rules += [f".{tone} rect{{fill:{ink.fill};stroke:{ink.line}}}", f".{tone} text{{fill:{ink.text}}}"]
    return f"<style>@media (prefers-color-scheme:dark){{{''.join(rules)}}}</style>"


_STYLE = _style()

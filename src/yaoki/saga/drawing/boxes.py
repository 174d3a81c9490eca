"""A graph as boxes of characters, from left to right where that fits, else from top to bottom.

    ┌───────────┐
    │ hotel ↶   ├──┐   ┏━━━━━━━━━━━┓   ┌─────────┐
    │ → Booking │  │   ┃ payment   ┠──▶│ confirm │
    └───────────┘  ├──▶┃ → Receipt ┃   └─────────┘
    ┌───────────┐  │   ┗━━━━━━━━━━━┛
    │ flight ↶  ├──┘
    │ → Booking │
    └───────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from yaoki.saga.drawing.layers import Layered
from yaoki.saga.drawing.look import Look, plain_looks
from yaoki.saga.drawing.placing import place
from yaoki.saga.drawing.routing import Net, NoRoomError, assign, nets_of, trunk
from yaoki.saga.graph import Graph
from yaoki.text import columns_of

Paint = Callable[[str, str], str]
"""Colours text for a tone; see `Look.tone`. Lines between boxes have the tone "line"."""

# The four ways out of a cell, as bits, and the character for each sum of them.
N, E, S, W = 1, 2, 4, 8
LINES = " ╵╶└╷│┌├╴┘─┴┐┤┬┼"
# Rows outside of the first and the last box of a layer that lines may take: as many as nets could ever want.
OUTSIDE = 40

BORDERS = {False: "┌─┐│└┘", True: "┏━┓┃┗┛"}


def boxes(graph: Graph, looks: Sequence[Look] | None = None, *, width: int = 100, paint: Paint | None = None,
          down: bool | None = None) -> str:
    """The graph as lines of text.

    Args:
        looks: what each step's box says, by number; by default what its definition says.
        width: columns to fit into. Where no way fits, the narrower one is taken, and the lines are longer.
        paint: colours; none by default.
        down: from top to bottom (True) or from left to right (False), instead of what fits.
    """
    looks = plain_looks(graph) if looks is None else looks
    if not looks:
        return ""
    layered = Layered(graph.needs)
    if down is not None:
        return _drawn(layered, looks, down=down).text(paint)
    across = _drawn(layered, looks, down=False)
    if across.width <= width:
        return across.text(paint)
    upright = _drawn(layered, looks, down=True)
    return min((upright, across), key=lambda drawing: drawing.width).text(paint)


def _drawn(graph: Layered, looks: Sequence[Look], *, down: bool) -> _Drawing:
    """The drawing with its boxes as near to each other as its lines allow."""
    room = 3 if down else 1
    while True:
        try:
            return _Drawing(graph, looks, room, down=down)
        except NoRoomError:
            room += 1
            assert room < OUTSIDE, "every line has a row of its own by now"


class Gap:
    """The cells between two layers. From top to bottom every one counts; from left to right it may breathe."""

    def __init__(self, begin: int, tracks: int, *, down: bool) -> None:
        self.begin = begin
        self.tracks = tracks
        self._lead, self._step = (1, 1) if down else (2, 2)
        self.end = self.track(max(tracks - 1, 0)) + (tracks > 0 if down else 3)

    def track(self, number: int) -> int:
        return self.begin + self._lead + number * self._step


class _Drawing:
    """A canvas of cells. "Flow" is the way that edges go, "row" the place across it; only `_put` knows which is x."""

    def __init__(self, graph: Layered, looks: Sequence[Look], room: int, *, down: bool) -> None:
        self.room = room  # free rows between two neighbours
        self.graph = graph
        self.looks = looks
        self.down = down
        self.lines = [[look.title, *([look.sub] if look.sub else [])] for look in looks]
        self.widths = [max(columns_of(line) for line in lines) + 4 for lines in self.lines]
        self.heights = [len(lines) + 2 for lines in self.lines]
        self.cells: dict[tuple[int, int], tuple[str, str]] = {}  # (y, x) to character and tone
        self.bits: dict[tuple[int, int], int] = {}
        self.bridges: set[tuple[int, int]] = set()
        self._measure()
        self._draw()
        columns = [x for _, x in [*self.cells, *self.bits]]
        self.width = 1 + max(columns) - min(columns)

    def _measure(self) -> None:
        points = len(self.graph.needs) - self.graph.size
        sizes = self.widths if self.down else self.heights
        middle = [size // 2 if self.down else (size - 1) // 2 for size in sizes]
        self.before = [*middle, *[0] * points]
        self.after = [*(size - 1 - half for size, half in zip(sizes, middle, strict=True)), *[0] * points]
        self.row = place(self.graph, self.before, self.after, gap=self.room)

    # ── along the flow ───────────────────────────────────────────────────────────────────────────────────────────────

    def _draw(self) -> None:
        at = 0
        for number, layer in enumerate(self.graph.layers):
            deep = max((self.heights if self.down else self.widths)[v] for v in layer if v < self.graph.size)
            for vertex in layer:
                self._vertex(vertex, at, deep)
            at += deep
            if number + 1 < len(self.graph.layers):
                at = self._gap(number, at)

    def _vertex(self, vertex: int, at: int, deep: int) -> None:
        if vertex >= self.graph.size:
            self._along(self.row[vertex], at, at + deep - 1, before=True, after=True)
            return
        size = self.heights[vertex] if self.down else self.widths[vertex]
        y, x = (at, self.row[vertex] - self.before[vertex]) if self.down else (self.row[vertex] - self.before[vertex], at)
        self._box(vertex, y, x, self.widths[vertex])
        if self.graph.followers[vertex] and size < deep:
            self._along(self.row[vertex], at + size, at + deep - 1, before=True, after=True)

    def _gap(self, number: int, begin: int) -> int:
        layers = self.graph.layers
        nets = nets_of([(v, follower) for v in layers[number] for follower in self.graph.followers[v]], self.row)
        gap = Gap(begin, assign(nets, self._free(layers[number + 1])), down=self.down)
        for net in nets:
            self._net(net, gap)
        for row in sorted({row for net in nets for row in net.detours}):  # lines to one target may join on their last track
            lanes = {net.detours[row] for net in nets if row in net.detours}
            self._across(gap.track(gap.tracks - 1), (min(row, *lanes), max(row, *lanes)), {row, *lanes})
        for vertex in layers[number + 1]:
            if vertex < self.graph.size:
                self._put(self.row[vertex], gap.end, "▼" if self.down else "▶", "line")
        return gap.end + 1

    def _free(self, layer: Sequence[int]) -> dict[int, list[int]]:
        """Rows beside each vertex of a layer that no vertex stands in: before it, then after it, the nearest first."""
        first = [self.row[v] - self.before[v] for v in layer]
        last = [self.row[v] + self.after[v] for v in layer]
        begins = [first[0] - OUTSIDE, *(end + 1 for end in last)]
        ends = [*first, last[-1] + OUTSIDE]
        return {self.row[v]: [*range(first[i] - 1, begins[i] - 1, -1), *range(last[i] + 1, ends[i + 1])] for i, v in enumerate(layer)}

    def _net(self, net: Net, gap: Gap) -> None:
        if net.is_straight and not net.detours:
            self._along(net.sources[0], gap.begin, gap.end, before=True, after=True)
            return
        track, last = gap.track(net.track), gap.track(gap.tracks - 1)
        for row in net.sources:
            self._along(row, gap.begin, track, before=True)
        for row in net.direct:
            self._along(row, track, gap.end, after=True)
        for row, beside in net.detours.items():
            self._along(beside, track, last)
            self._along(row, last, gap.end, after=True)
        self._across(track, trunk(net), {*net.sources, *net.direct, *net.detours.values()})

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _along(self, row: int, begin: int, end: int, *, before: bool = False, after: bool = False) -> None:
        """A line with the flow. `before`, `after`: does it go on beyond its first and last cell?"""
        back, forth = (N, S) if self.down else (W, E)
        for at in range(begin, end + 1):
            self._line(row, at, (back if at > begin or before else 0) | (forth if at < end or after else 0))

    def _across(self, at: int, rows: tuple[int, int], touched: set[int]) -> None:
        """A line across the flow. It meets the lines in the rows it touches, and bridges the others."""
        first, last = rows
        low, high = (W, E) if self.down else (N, S)
        for row in range(first, last + 1):
            if row not in touched:
                self.bridges.add(self._cell(row, at))
            self._line(row, at, (low if row > first else 0) | (high if row < last else 0))

    def _cell(self, row: int, at: int) -> tuple[int, int]:
        return (at, row) if self.down else (row, at)

    def _line(self, row: int, at: int, bits: int) -> None:
        cell = self._cell(row, at)
        self.bits[cell] = self.bits.get(cell, 0) | bits

    def _put(self, row: int, at: int, char: str, tone: str) -> None:
        self.cells[self._cell(row, at)] = (char, tone)

    # ── boxes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _box(self, vertex: int, y: int, x: int, wide: int) -> None:
        look = self.looks[vertex]
        left_top, flat, right_top, upright, left_low, right_low = tuple(BORDERS[look.pivot])
        self._write(y, x, left_top + flat * (wide - 2) + right_top, look.tone)
        for number, line in enumerate(self.lines[vertex]):
            self._write(y + 1 + number, x, upright, look.tone)
            self._write(y + 1 + number, x + 2, line, look.tone if number == 0 else "sub")
            self._write(y + 1 + number, x + wide - 1, upright, look.tone)
        self._write(y + self.heights[vertex] - 1, x, left_low + flat * (wide - 2) + right_low, look.tone)
        if self.graph.followers[vertex]:
            self._port(vertex, y, x, wide, look)

    def _port(self, vertex: int, y: int, x: int, wide: int, look: Look) -> None:
        """Where the box's line leaves it."""
        if self.down:
            self.cells[y + self.heights[vertex] - 1, self.row[vertex]] = ("┯" if look.pivot else "┬", look.tone)
        else:
            self.cells[self.row[vertex], x + wide - 1] = ("┠" if look.pivot else "├", look.tone)

    def _write(self, y: int, x: int, text: str, tone: str) -> None:
        for char in text:
            self.cells[y, x] = (char, tone)
            x += columns_of(char)

    # ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def text(self, paint: Paint | None) -> str:
        for cell, bits in self.bits.items():
            char = LINES[bits]
            if cell in self.bridges:  # what crosses the flow passes over what goes with it
                char = "─" if self.down else "│"
            self.cells.setdefault(cell, (char, "line"))
        top, left = min(y for y, _ in self.cells), min(x for _, x in self.cells)
        rows: list[list[tuple[int, str, str]]] = [[] for _ in range(1 + max(y for y, _ in self.cells) - top)]
        for (y, x), (char, tone) in self.cells.items():
            rows[y - top].append((x - left, char, tone))
        return "\n".join("".join(_runs(sorted(row), paint)).rstrip() for row in rows)


def _runs(row: list[tuple[int, str, str]], paint: Paint | None) -> Iterator[str]:
    """A row's cells as text, painted a stretch of one tone at a time."""
    x, stretch, tone = 0, "", "line"
    for at, char, its in row:
        if its != tone:
            yield paint(stretch, tone) if paint and stretch.strip() else stretch
            stretch, tone = "", its
        stretch += " " * (at - x) + char
        x = at + columns_of(char)
    yield paint(stretch, tone) if paint and stretch.strip() else stretch

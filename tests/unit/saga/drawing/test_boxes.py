"""Boxes of characters: what people see, and that every line leads where an edge leads and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from yaoki.saga.drawing import boxes, looks_of, plain_looks
from yaoki.saga.drawing.boxes import _Drawing, _drawn
from yaoki.saga.drawing.layers import Layered
from yaoki.saga.drawing.look import Look
from yaoki.saga.drawing.routing import assign, nets_of
from yaoki.saga.graph import Graph, Node
from yaoki.saga.machine import decide
from yaoki.saga.records import Kind, Record
from yaoki.text import columns_of

TRIP = Graph("trip", (
    Node("hotel", gives="Booking", undo=True),
    Node("flight", gives="Booking", undo=True),
    Node("points", needs=("flight",), gives="Points", undo=True),
    Node("payment", needs=("hotel", "flight"), gives="Receipt", pivot=True),
    Node("confirm", needs=("payment",)),
    Node("insurance", needs=("hotel",)),
))


def test_a_trip_from_left_to_right():
    assert boxes(TRIP) == """\
┌───────────┐                                           ┌─────────┐
│ hotel ↶   ├────────────────────┐                  ┌──▶│ confirm │
│ → Booking │                    │   ┏━━━━━━━━━━━┓  │   └─────────┘
└───────────┘                    ├──▶┃ payment   ┠──┤
                   ┌──────────┐  │   ┃ → Receipt ┃  │   ┌───────────┐
┌───────────┐  ┌──▶│ points ↶ ├──┘   ┗━━━━━━━━━━━┛  └──▶│ insurance │
│ flight ↶  ├──┘   │ → Points │                         └───────────┘
│ → Booking │      └──────────┘
└───────────┘"""


def test_the_same_from_top_to_bottom_where_the_terminal_is_narrow():
    drawn = boxes(TRIP, width=40)
    assert drawn == boxes(TRIP, down=True)
    assert max(map(columns_of, drawn.splitlines())) <= 40
    assert "┗━━━━━┯━━━━━┛" in drawn
    assert "▼" in drawn
    assert "▶" not in drawn


def test_a_run_shows_where_each_step_is():
    machine = decide(TRIP, [Record(Kind.DONE, "hotel", b"1"), Record(Kind.FAILED, "flight", b'{"error":"E"}')])
    drawn = boxes(TRIP, looks_of(machine))
    assert "✓ hotel" in drawn
    assert "✗ flight" in drawn
    assert "· payment" in drawn


def test_wide_characters_take_two_columns():
    drawn = boxes(Graph("旅", (Node("予約", gives="切符"),)))
    assert {columns_of(line) for line in drawn.splitlines()} == {columns_of("│ → 切符 │")}


def test_colours_change_nothing_else():
    painted = boxes(TRIP, paint=lambda text, tone: f"<{tone}>{text}</>")
    import re

    assert re.sub(r"<[^>]*>", "", painted) == boxes(TRIP)


def test_nothing_to_draw():
    assert boxes(Graph("empty", ())) == ""


# ── every line leads where an edge leads ─────────────────────────────────────────────────────────────────────────────

WAYS = {"╵": "N", "╶": "E", "└": "NE", "╷": "S", "│": "NS", "┌": "ES", "├": "NES", "╴": "W", "┘": "NW", "─": "EW", "┴": "NEW",
        "┐": "SW", "┤": "NSW", "┬": "ESW", "┼": "NESW", "▶": "W", "▼": "N"}
STEP = {"N": (-1, 0), "E": (0, 1), "S": (1, 0), "W": (0, -1)}
BACK = {"N": "S", "S": "N", "E": "W", "W": "E"}


class Reader:
    """Follows lines like an eye that does not know the graph: forward only, over bridges straight on."""

    def __init__(self, drawing: _Drawing, *, down: bool) -> None:
        drawing.text(None)
        self.chars = {cell: char for cell, (char, _) in drawing.cells.items()}
        self.drawing = drawing
        self.forward = "S" if down else "E"
        self.heads = {}
        for vertex in range(drawing.graph.size):
            wide, tall = drawing.widths[vertex], drawing.heights[vertex]
            self.heads[vertex] = (wide, tall)

    def targets(self, start: tuple[int, int], ends: dict[tuple[int, int], int]) -> set[int]:
        found, seen, todo = set(), set(), [(start, self.forward)]
        while todo:
            (y, x), way = todo.pop()
            cell = (y + STEP[way][0], x + STEP[way][1])
            if (cell, way) in seen:
                continue
            seen.add((cell, way))
            char = self.chars.get(cell, " ")
            if cell in ends:
                found.add(ends[cell])
                continue
            bits = self.drawing.bits.get(cell)
            if cell in self.drawing.bridges and bits is not None and bits.bit_count() == 4:
                todo.append((cell, way))  # over or under, but straight on
                continue
            assert BACK[way] in WAYS.get(char, ""), f"the line breaks off at {cell}: {char!r} after going {way}"
            todo += [(cell, out) for out in WAYS[char] if out not in {BACK[way], BACK[self.forward]}]
        return found


@st.composite
def needs(draw: st.DrawFn) -> list[list[int]]:
    size = draw(st.integers(2, 9))
    return [sorted(draw(st.sets(st.integers(0, node - 1), max_size=3))) if node else [] for node in range(size)]


@settings(max_examples=150)
@example([[], [], [], [0, 1], [0, 1, 2], [0, 2]], False)  # two detours in one row, until each had its own
@example([[], [], [], [], [1, 2, 3], [1, 2], [0, 1, 3], [3, 6], [0, 3, 6, 7], [0, 2, 6]], True)  # two detours to one target
@given(needs(), st.booleans())
def test_following_the_lines_from_each_box_leads_to_its_followers_and_to_nothing_else(direct: list[list[int]], down: bool):
    graph = Layered(direct)
    looks = [Look(f"s{node}") for node in range(len(direct))]
    drawing = _drawn(graph, looks, down=down)
    reader = Reader(drawing, down=down)
    arrows = {cell: None for cell, char in reader.chars.items() if char in "▶▼"}
    boxes_at = where(drawing, reader, down=down)
    ends = {arrow: vertex for arrow in arrows for vertex, (inlet, _) in boxes_at.items() if arrow == inlet}
    for vertex, (_, outlet) in boxes_at.items():
        wanted = {target for source, target in graph.edges if source == vertex}
        if wanted:
            assert reader.targets(outlet, ends) == wanted, boxes_text(drawing)


def where(drawing: _Drawing, reader: Reader, *, down: bool) -> dict[int, tuple[tuple[int, int], tuple[int, int]]]:
    """Where each box is entered (the cell of the arrow) and left (the cell of its own border)."""
    text = {}
    for (y, x), char in reader.chars.items():
        if char == "s" and (y, x + 1) in reader.chars and reader.chars[y, x + 1].isdigit():
            text[int(reader.chars[y, x + 1])] = (y, x)
    found = {}
    for vertex, (y, x) in text.items():
        wide, tall = reader.heads[vertex]
        if down:
            row = drawing.row[vertex]
            found[vertex] = ((y - 2, row), (y - 2 + tall, row))
        else:
            found[vertex] = ((drawing.row[vertex], x - 3), (drawing.row[vertex], x - 3 + wide))
    return found


def boxes_text(drawing: _Drawing) -> str:
    return "\n" + drawing.text(None)


@pytest.mark.parametrize("edges", [
    [(0, 2), (0, 3), (1, 2)],  # a shared target: one line joins, the other could be misread
    [(0, 2), (0, 3), (1, 2), (1, 3)],  # complete: one net
    [(0, 3), (1, 2)],  # a crossing
])
def test_two_trunks_never_share_a_track(edges: list[tuple[int, int]]):
    nets = nets_of(edges, [0, 4, 0, 4])
    tracks = assign(nets, {0: [-2, 2], 4: [2, 6]})
    used = [net.track for net in nets if not net.is_straight]
    assert len(used) == len(set(used))
    assert max(used, default=0) < max(tracks, 1)


def test_what_a_step_gives_and_whether_it_can_be_undone_is_on_its_box():
    looks = plain_looks(TRIP)
    assert looks[0] == Look("hotel ↶", "→ Booking")
    assert looks[3].pivot
    assert looks[4] == Look("confirm")

"""SVG, Mermaid and DOT: well formed, harmless whatever steps are called, and readable."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from yaoki.saga.drawing import dot, mermaid, svg
from yaoki.saga.drawing.look import Look
from yaoki.saga.drawing.palette import DARK, LIGHT, PAPER
from yaoki.saga.graph import Graph, Node

TRIP = Graph("trip", (Node("hotel", undo=True), Node("flight", undo=True), Node("pay", needs=("hotel", "flight"), pivot=True),
                      Node("mail", needs=("pay",))))
NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=12)
SVG = "{http://www.w3.org/2000/svg}"


@given(NAMES, NAMES)
def test_svg_is_well_formed_and_says_the_names_whatever_they_are(name: str, gives: str):
    root = ET.fromstring(svg(Graph("g", (Node(name, gives=gives),)), [Look(name, gives)]))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert texts == [name, gives]


def test_svg_has_a_box_a_step_a_path_an_edge_and_nothing_outside_its_frame():
    root = ET.fromstring(svg(TRIP))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = [rect for rect in root.iter(f"{SVG}rect") if rect.get("class") != "paper"]
    assert len(boxes) == 4
    for rect in boxes:
        x, y, w, h = (float(rect.get(name, -1)) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
    assert len([path for path in root.iter(f"{SVG}path") if path.get("class") is None]) == 3


def test_svg_inside_a_page_needs_no_inline_style_and_no_other_origin():
    text = svg(TRIP, standalone=False)
    assert "<style" not in text
    assert "style=" not in text
    assert "href" not in text
    assert "<style" in svg(TRIP), "a file of its own follows light and dark"


def test_mermaid():
    assert mermaid(TRIP) == """\
flowchart LR
    s0["hotel ↶"]:::plain
    s1["flight ↶"]:::plain
    s2{{"pay"}}:::plain
    s3["mail"]:::plain
    s0 --> s2
    s1 --> s2
    s2 --> s3
    classDef plain fill:#ffffff,stroke:#5b6573,color:#1c2330
"""


@given(NAMES)
def test_mermaid_and_dot_quote_every_name(name: str):
    graph = Graph(name, (Node(name),))
    (line,) = [line for line in mermaid(graph).splitlines() if "s0" in line]
    assert line.count('"') == 2
    (label,) = [line for line in dot(graph).splitlines() if "s0 [" in line]
    inside = label.partition('label="')[2].partition('", fillcolor')[0]
    assert inside.replace("\\\\", "").replace('\\"', "").count('"') == 0


def luminance(color: str) -> float:
    """Source: WCAG 2.2, relative luminance."""
    parts = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_and_lines_have_the_contrast_that_readers_need():
    for palette, paper in ((LIGHT, PAPER[0]), (DARK, PAPER[1])):
        for tone, ink in palette.items():
            assert contrast(ink.text, ink.fill) >= 4.5, tone
            assert contrast(ink.line, paper) >= 3.0, tone

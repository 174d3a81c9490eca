"""A graph as text that other programs draw: Mermaid (GitHub and many wikis show it) and DOT (Graphviz)."""

from __future__ import annotations

from collections.abc import Sequence

from yaoki.saga.drawing.layers import without_implied
from yaoki.saga.drawing.look import Look, plain_looks
from yaoki.saga.drawing.palette import LIGHT
from yaoki.saga.graph import Graph


def mermaid(graph: Graph, looks: Sequence[Look] | None = None) -> str:
    """A Mermaid flowchart. Source of its quoting: mermaid.js.org/syntax/flowchart.html, entity codes."""
    looks = plain_looks(graph) if looks is None else looks
    lines = ["flowchart LR"]
    for number, look in enumerate(looks):
        label = "<br/>".join(_entities(text) for text in (look.title, look.sub) if text)
        left, right = ("{{", "}}") if look.pivot else ("[", "]")
        lines.append(f'    s{number}{left}"{label}"{right}:::{look.tone}')
    lines += [f"    s{source} --> s{target}" for source, target in _edges(graph)]
    lines += [f"    classDef {tone} fill:{LIGHT[tone].fill},stroke:{LIGHT[tone].line},color:{LIGHT[tone].text}"
              for tone in sorted({look.tone for look in looks})]
    return "\n".join(lines) + "\n"


def dot(graph: Graph, looks: Sequence[Look] | None = None) -> str:
    """A DOT digraph. Source of its quoting: graphviz.org/doc/info/lang.html."""
    looks = plain_looks(graph) if looks is None else looks
    lines = [f"digraph {_quoted(graph.saga)} {{", "    rankdir=LR;",
             '    node [shape=box, style="rounded,filled", fontname="sans-serif", fontsize=11];',
             f'    edge [color="{LIGHT["plain"].line}", arrowsize=0.7];']
    for number, look in enumerate(looks):
        label = _quoted("\n".join(text for text in (look.title, look.sub) if text))
        ink = LIGHT[look.tone]
        pivot = ', penwidth=2.5, style="filled"' if look.pivot else ""
        lines.append(f'    s{number} [label={label}, fillcolor="{ink.fill}", color="{ink.line}", fontcolor="{ink.text}"{pivot}];')
    lines += [f"    s{source} -> s{target};" for source, target in _edges(graph)]
    return "\n".join([*lines, "}"]) + "\n"


def _edges(graph: Graph) -> list[tuple[int, int]]:
    return [(source, target) for target, sources in enumerate(without_implied(graph.needs)) for source in sources]


def _entities(text: str) -> str:
    return "".join(char if char.isalnum() or char in " _-.,→↶✓✗▸·∅" else f"#{ord(char)};" for char in text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

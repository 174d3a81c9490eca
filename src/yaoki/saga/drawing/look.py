"""What a box says of its step: as it is defined, or where it is in a certain run."""

from __future__ import annotations

from dataclasses import dataclass

from yaoki.saga.graph import Graph, Node
from yaoki.saga.machine import Machine, Step
from yaoki.saga.parts.state import Part, Parts
from yaoki.text import grouped


@dataclass(frozen=True)
class Look:
    """How one step is drawn.

    Attributes:
        title, sub: the two lines of its box; sub may be empty.
        tone: good, bad, busy, gone, idle or plain. Colours belong to whoever draws.
        pivot: the point of no return is drawn with a heavy border.
    """

    title: str
    sub: str = ""
    tone: str = "plain"
    pivot: bool = False


# Where a step is: its mark, what a person calls it, and its tone.
STATES = {
    Step.WAITING: ("·", "waiting", "idle"),
    Step.READY: ("▸", "running", "busy"),
    Step.DONE: ("✓", "done", "good"),
    Step.FAILED: ("✗", "failed", "bad"),
    Step.DOUBTFUL: ("?", "failed, in doubt", "bad"),
    Step.BLOCKED: ("!", "blocked", "bad"),
    Step.TO_UNDO: ("↶", "undoing", "busy"),
    Step.UNDO_BLOCKED: ("!", "undo blocked", "bad"),
    Step.CLEAR: ("∅", "nothing left", "gone"),
    Step.PARKED: ("◷", "waiting for a time or an answer", "idle"),
    Step.KEPT: ("✓", "kept, decided by a person", "good"),
}


def legend(graph: Graph) -> str:
    """What the marks in `plain_looks` mean, as far as this graph has them."""
    pivot = "┏━┓ the point of no return: what comes after it only goes forward"
    return "   ".join(text for text, has in (("↶ can be undone", any(node.undo for node in graph.nodes)),
                                            (pivot, graph.pivot >= 0)) if has)


def plain_looks(graph: Graph) -> list[Look]:
    """Each step as defined: what it gives, and whether it can be undone."""
    return [_plain(node) for node in graph.nodes]


def _plain(node: Node) -> Look:
    gives = "" if node.gives in {"None", "Any", ""} else f"→ {node.gives}"
    waits = {"": "", "sleep": "◷ sleeps", "signal": "◷ waits for an answer", "child": ""}.get(node.waits, f"◷ {node.waits}")
    sub = "  ".join(part for part in (waits, _made_of(node), gives) if part)
    return Look(f"{node.name} ↶" if node.undo else node.name, sub, pivot=node.pivot)


def _made_of(node: Node) -> str:
    """Of a step that is more than one call: of what."""
    if node.child:
        return f"⑂ runs {node.child}" if node.waits else f"⑂ starts {node.child}"
    return {"": "", "each": "× each item", "first_of": f"first of {', '.join(node.options)}", "flow": "⟳ as it goes"}[node.parts]


def _told(parts: Parts) -> str:
    """How many parts are where."""
    states = list(parts.states.values())
    gone = sum(state is Part.GONE and name not in parts.failures for name, state in parts.states.items())
    counts = {"done": states.count(Part.DONE), "failed": len(parts.failures), "undone": gone, "under way": states.count(Part.BEGUN)}
    return ", ".join(f"{grouped(count)} {word}" for word, count in counts.items() if count)


def looks_of(machine: Machine) -> list[Look]:
    """Each step as it is in a run."""
    return [look_of(machine, number) for number in range(len(machine.graph))]


def look_of(machine: Machine, number: int, more: str = "") -> Look:
    """One step as it is in a run. `more` follows the word for its state."""
    node = machine.graph.nodes[number]
    step = Step(machine.steps[number])
    mark, words, tone = STATES[step]
    if step is Step.PARKED and node.child:
        words = f"waiting for a run of {node.child}"
    if number in machine.parts:
        more = f"{_told(machine.parts[number])}  {more}"
    if step is Step.TO_UNDO:
        words = "to undo, in doubt" if number in machine.doubt else "to undo"
    return Look(f"{mark} {node.name}", f"{words}  {more}".strip(), tone, node.pivot)

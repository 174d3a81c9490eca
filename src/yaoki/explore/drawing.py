"""A counterexample for other eyes: a Mermaid sequence diagram, and a pytest test. (The page for a browser: `page.py`.)"""

from __future__ import annotations

import textwrap

from yaoki.chaos import faults
from yaoki.explore.story import UNHEARD, Line, Story, shortened

# Browsers draw a longer diagram badly, and nobody reads it.
MOST_LINES = 120


def mermaid(story: Story) -> str:
    """A counterexample as a Mermaid `sequenceDiagram`: calls are arrows, faults end in a cross, what is broken is a band at its moment."""
    lanes = story.lanes or ["program"]
    names = {lane: f"p{number}" for number, lane in enumerate(lanes)}
    everybody = ",".join(dict.fromkeys((names[lanes[0]], names[lanes[-1]])))
    lines = ["sequenceDiagram", *(f"    participant {names[lane]} as {_plain(lane)}" for lane in lanes)]
    shown, left = shortened(story.lines, MOST_LINES)
    for index, line in enumerate(shown):
        if left and index == len(shown) // 2:
            lines.append(f"    Note over {everybody}: {left} lines more of the same")
        lines += _drawn(line, names, everybody)
    return "\n".join(lines) + "\n"


def _drawn(line: Line, names: dict[str, str], everybody: str) -> list[str]:
    lane = names.get(line.lane, "")
    if line.to and line.to in names and line.to != line.lane and lane:
        return _call(line, lane, names[line.to])
    words = UNHEARD if line.words.endswith(UNHEARD) else line.words
    said = f"    Note over {lane or everybody}: {_wrapped(_plain(f'{line.at_s:.3f} s {words}'))}"
    if not lane and line.words.startswith("✗"):
        return ["    rect rgb(255, 225, 222)", said, "    end"]
    return [said]


def _call(line: Line, here: str, there: str) -> list[str]:
    """An arrow; of a call that is struck one that ends in a cross, or one that arrives and whose answer does not."""
    words = _plain(line.words.removeprefix("→ ").partition("  ⚡")[0].rpartition(">")[2].removeprefix(f"{line.to}."))
    if not line.fault:
        return [f"    {here}->>{there}: {words}"]
    fault = faults.find(line.fault)
    if fault.effect is faults.Effect.NONE:
        return [f"    {here}-x{there}: {words} ⚡ {line.fault}"]
    lost = [f"    {there}--x{here}: no answer"] if fault.caller != "ok" else []
    return [f"    {here}->>{there}: {words} ⚡ {line.fault}", *lost]


def _wrapped(text: str) -> str:
    """Mermaid does not break lines of notes by itself."""
    return "<br/>".join(textwrap.wrap(text, 44, break_long_words=False)) or text


def _plain(text: str) -> str:
    """Mermaid ends a message at `;` and reads `#` as an entity."""
    return text.replace(";", ",").replace("#", "no. ").replace("\n", " ")


def as_test(story: Story, target: str, number: int = 1) -> str:
    """A pytest test that replays the story. target: `MODULE:NAME` of the scenario or saga."""
    module, _, name = target.partition(":")
    said = "\n".join(f"    {invariant}: {why}" for invariant, why in story.violations)
    return (f"from {module} import {name}\n\nfrom yaoki.explore import replay\n\n\n"
            f"def test_{name}_counterexample_{number}():\n"
            f'    """Found by the explorer:\n\n{said}\n    """\n'
            f"    run, story = replay({name}, {story.token!r})\n"
            f"    assert not run.violations, story.text()\n")

"""A report for other eyes: a Mermaid sequence diagram, one HTML page that needs nothing else, a pytest test."""

from __future__ import annotations

from html import escape

from yaoki.explore.report import LEGEND, Report
from yaoki.explore.story import Story

# Browsers draw a longer diagram badly, and nobody reads it.
MOST_LINES = 120


def mermaid(story: Story) -> str:
    """A counterexample as a Mermaid `sequenceDiagram`."""
    lanes = story.lanes or ["program"]
    names = {lane: f"p{number}" for number, lane in enumerate(lanes)}
    lines = ["sequenceDiagram", *(f"    participant {names[lane]} as {_plain(lane)}" for lane in lanes)]
    for line in story.lines[:MOST_LINES]:
        lane = names.get(line.lane, "p0")
        words = _plain(line.words)
        site = line.words.removeprefix("→ ").partition("  ⚡")[0]
        called = next((other for other in lanes if line.words.startswith("→") and other != line.lane and f"{other}." in site), "")
        if called:
            lines.append(f"    {lane}{'-x' if '⚡' in line.words else '->>'}{names[called]}: {words.removeprefix('→ ')}")
        else:
            lines.append(f"    Note over {lane}: {line.at_s:.3f} s {words}")
    return "\n".join(lines) + "\n"


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


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1b1f24;background:#fff}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}td,th{padding:.15rem .5rem;border:1px solid #d0d7de;text-align:center}
th:first-child{text-align:left;font-weight:500;white-space:nowrap}thead th{font-weight:500;font-size:.75rem;writing-mode:vertical-rl;text-align:left;padding:.5rem .15rem}
.bad{background:#ffd7d5;color:#82071e;font-weight:700}.undone{background:#ddf4ff}.blocked{background:#fff8c5}.ok{color:#1a7f37}
pre{background:#f6f8fa;padding:1rem;overflow-x:auto;font-size:.8rem;line-height:1.4}section{border-left:4px solid #cf222e;padding-left:1rem;margin:2rem 0}
code{background:#f6f8fa;padding:.1rem .3rem}h1{font-size:1.5rem}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}td,th{border-color:#30363d}pre,code{background:#161b22}.bad{background:#67060c;color:#ffdcd7}.undone{background:#0c2d6b}.blocked{background:#693e00}.ok{color:#56d364}}
"""
_CLASSES = {"✗": "bad", "↶": "undone", "■": "blocked", "✓": "ok"}


def html(report: Report) -> str:
    """The whole report as one page: no script, no request."""
    verdict = "clean" if report.ok else f"{report.found} executions break an invariant"
    head = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    parts = [f"{head}<title>{escape(report.name)}: {escape(verdict)}</title><style>{_STYLE}</style>",
             f"<h1>{escape(report.name)}: {escape(verdict)}</h1><pre>{escape(report.summary())}</pre>"]
    parts += [_story(story) for story in report.stories]
    if report.matrix:
        parts.append(_matrix(report))
    return "\n".join(parts) + "\n"


def _story(story: Story) -> str:
    broken = "".join(f"<p><b>{escape(name)}</b>: {escape(why)}</p>" for name, why in story.violations)
    cause = f"<p>Likely cause: {escape(story.cause)}</p>" if story.cause else ""
    plan = "".join(f"<li>{escape(planned.told())}</li>" for planned in story.plan)
    return (f"<section>{broken}{cause}<ol>{plan}</ol><pre>{escape(chr(10).join(story.timeline()))}</pre>"
            f"<p>Replay: <code>--replay '{escape(story.token)}'</code></p></section>")


def _matrix(report: Report) -> str:
    faults = sorted({fault for row in report.matrix.values() for fault in row})
    head = "".join(f"<th>{escape(fault)}</th>" for fault in faults)
    rows = "".join(f"<tr><th>{escape(site)}</th>{''.join(_cell(row.get(fault, '')) for fault in faults)}</tr>" for site, row in report.matrix.items())
    return f"<h2>Single faults</h2><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table><p>{escape(LEGEND)}</p>"


def _cell(mark: str) -> str:
    return f"<td class={_CLASSES[mark]}>{mark}</td>" if mark in _CLASSES else f"<td>{escape(mark)}</td>"

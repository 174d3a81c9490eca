"""A report as one page for a browser: no script, no request, light and dark; printed, sent and kept as it is.

    verdict ▸ what was explored, in numbers ▸ each counterexample: what is broken, why, the diagram, how to replay it ▸ the matrix
"""

from __future__ import annotations

from html import escape

from yaoki.chaos import faults as catalogue
from yaoki.explore.report import NOTHING_THERE, Report
from yaoki.explore.story import UNHEARD, Line, Story, shortened

# Lines of a diagram: about two screens.
MOST_DRAWN = 60
_COLUMN, _ROW, _LEFT, _TOP, _RIGHT, _NARROWEST = 190, 30, 84, 54, 90, 760

_STYLE = """
:root{--text:#1f2328;--soft:#59636e;--line:#d1d9e0;--ground:#fff;--raised:#f6f8fa;--bad:#cf222e;--badground:#ffebe9;--good:#1a7f37;--goodground:#dafbe1;
--back:#0969da;--background:#ddf4ff;--wait:#9a6700;--waitground:#fff8c5}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--soft:#9198a1;--line:#3d444d;--ground:#0d1117;--raised:#151b23;--bad:#ff7b72;--badground:#3c1618;
--good:#3fb950;--goodground:#12261e;--back:#58a6ff;--background:#0c2d6b55;--wait:#d29922;--waitground:#3a2d1255}}
*{box-sizing:border-box}body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;color:var(--text);background:var(--ground);margin:0 auto;
max-width:70rem;padding:2rem 1.25rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:.75rem 0}h2{font-size:1.2rem;margin:2.5rem 0 .75rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
h3{font-size:1.05rem;margin:0 0 .25rem}p{margin:.5rem 0}small,.soft{color:var(--soft)}
.verdict{display:inline-block;padding:.2rem .7rem;border-radius:2rem;font-weight:600;font-size:.9rem}
.verdict.good{color:var(--good);background:var(--goodground)}.verdict.bad{color:var(--bad);background:var(--badground)}
dl.numbers{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:1.25rem 0}
dl.numbers div{border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}dl.numbers dt{color:var(--soft);font-size:.8rem}
dl.numbers dd{margin:0;font-size:1.25rem;font-weight:600;font-variant-numeric:tabular-nums}dl.numbers dd small{font-weight:400;font-size:.8rem}
article{border:1px solid var(--line);border-left:4px solid var(--bad);border-radius:.5rem;padding:1rem 1.25rem;margin:1.25rem 0;overflow:hidden}
article .cause{background:var(--waitground);border-radius:.4rem;padding:.5rem .75rem}article ol{margin:.5rem 0;padding-left:1.4rem}
.draw{overflow-x:auto;margin:1rem -1.25rem;padding:0 1.25rem}svg{display:block;font:13px system-ui,sans-serif}
svg text{fill:var(--text)}svg .soft{fill:var(--soft);font-size:11px}svg .life{stroke:var(--line)}svg .call{stroke:var(--soft);fill:none}
svg .tip{fill:var(--soft)}svg .struck{stroke:var(--bad);fill:none;stroke-dasharray:5 3}svg .bad{fill:var(--bad)}svg .head{fill:var(--raised);stroke:var(--line)}
svg .band{fill:var(--badground)}svg .dot{fill:var(--good)}svg .cut{stroke:var(--bad);stroke-width:2}svg .name{font-weight:600}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,monospace;background:var(--raised);border-radius:.35rem}code{padding:.1rem .35rem}
pre{padding:.75rem 1rem;overflow-x:auto}pre.replay{white-space:pre-wrap;overflow-wrap:anywhere}summary{cursor:pointer;color:var(--soft)}
.matrix{overflow-x:auto}table{border-collapse:separate;border-spacing:0;font-size:.85rem}td,th{padding:.2rem .35rem;border-bottom:1px solid var(--line)}
tbody th{font-weight:500;text-align:left;white-space:nowrap;padding-right:1rem;position:sticky;left:0;background:var(--ground)}
thead th{font-weight:500;vertical-align:bottom;color:var(--soft)}thead span{writing-mode:vertical-rl;transform:rotate(180deg);white-space:nowrap;font-size:.78rem}
td{text-align:center;min-width:1.9rem}td i{display:inline-block;width:1.35rem;border-radius:.3rem;font-style:normal;font-weight:600}
.m-ok{color:var(--good)}.m-undone{color:var(--back);background:var(--background)}.m-bad{color:var(--bad);background:var(--badground)}
.m-blocked,.m-error,.m-stuck{color:var(--wait);background:var(--waitground)}ul.legend{display:flex;flex-wrap:wrap;gap:.4rem 1.25rem;list-style:none;padding:0;font-size:.85rem}
.legend i{display:inline-block;width:1.35rem;text-align:center;border-radius:.3rem;font-style:normal;font-weight:600}
"""
_MARKS = {"✓": ("m-ok", "as without faults"), "↶": ("m-undone", "undone"), "e": ("m-error", "the caller got an error"), "■": ("m-blocked", "blocked: waits for a person"),
          "∞": ("m-stuck", "does not end"), "✗": ("m-bad", "an invariant is broken"), "?": ("m-stuck", "never fired")}


def html(report: Report) -> str:
    """The whole report as one page."""
    verdict = "Every invariant held" if report.ok else f"{report.found:,} of {report.executions:,} executions break an invariant" if report.found else "Not a clean result"
    kind = "good" if report.ok else "bad"
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>",
             f"<title>{escape(report.name)}: {escape(verdict.lower())}</title><style>{_STYLE}</style>",
             f"<header><span class='verdict {kind}'>{escape(verdict)}</span><h1>{escape(report.name)}</h1>{_numbers(report)}{_notes(report)}</header>"]
    if report.stories:
        parts.append(f"<h2>{_count(len(report.stories), 'way', 'ways')} to break it, in {'its' if len(report.stories) == 1 else 'their'} smallest form</h2>")
        parts += [_story(number, story) for number, story in enumerate(report.stories, 1)]
    if report.matrix:
        parts.append(_matrix(report))
    return "\n".join(parts) + "\n"


# ── what was explored ──


def _numbers(report: Report) -> str:
    depths = " · ".join(f"{count:,} with {_count(depth, 'fault', 'faults')}" for depth, count in sorted(report.by_depth.items()))
    rate = f" <small>{report.executions / report.seconds:,.0f}/s</small>" if report.seconds > 0.01 else ""
    cells = [("executions", f"{report.executions:,}", depths), ("points in the plain run", f"{report.points:,}", "where something can fail"),
             ("kinds of fault", f"{len(report.kinds)}", f"{report.fired:,} made to happen"), ("time", f"{report.seconds:.2f} s{rate}", "")]
    return "<dl class=numbers>" + "".join(
        f"<div><dt>{escape(name)}</dt><dd>{value}</dd>{f'<small>{escape(more)}</small>' if more else ''}</div>" for name, value, more in cells) + "</dl>"


def _notes(report: Report) -> str:
    """How far it went, what was left out and why, and what was never reached."""
    said = []
    if report.stopped:
        said.append(f"Stopped {report.stopped}. Every set of up to {_count(max(0, report.depths_done), 'fault', 'faults')} was covered.")
    elif report.exhausted:
        said.append(f"Every set of up to {_count(report.depth, 'fault', 'faults')} of these kinds was covered.")
    if pruned := {rule: count for rule, count in sorted(report.pruned.items()) if count and rule != NOTHING_THERE}:
        said.append("Left out, because another execution covers them: " + ", ".join(f"{count:,} ({rule})" for rule, count in pruned.items()) + ".")
    if report.pruned[NOTHING_THERE]:
        said.append(f"{_count(report.pruned[NOTHING_THERE], 'planned fault', 'planned faults')} could do nothing where it was to strike, and is not counted.")
    if report.never:
        said.append("Never reached, though some execution should: " + ", ".join(report.never) + ".")
    if report.unfired:
        said.append("Planned faults that never fired: " + ", ".join(report.unfired[:5]) + ".")
    return "".join(f"<p>{escape(each)}</p>" for each in said)


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


# ── a counterexample ──


def _story(number: int, story: Story) -> str:
    broken = "".join(f"<h3>{f'{number}. ' if not place else ''}{escape(name)}</h3><p>{escape(why)}</p>" for place, (name, why) in enumerate(story.violations))
    cause = f"<p class=cause><b>Likely cause:</b> {escape(story.cause)}</p>" if story.cause else ""
    plan = "".join(f"<li>{escape(planned.told())}</li>" for planned in story.plan)
    faults = f"<p>What was made to happen:</p><ol>{plan}</ol>" if plan else "<p>Nothing was made to happen: it breaks by itself.</p>"
    return (f"<article>{broken}{cause}{faults}<div class=draw>{diagram(story)}</div>"
            f"<details><summary>as text</summary><pre>{escape(chr(10).join(story.timeline()))}</pre></details>"
            f"<p>Replay it:</p><pre class=replay>--replay '{escape(story.token)}'</pre></article>")


def diagram(story: Story) -> str:
    """The story as a sequence diagram: time goes down, a lane for each process and service, faults in red."""
    lanes = story.lanes or ["program"]
    lines, left = shortened(story.lines, MOST_DRAWN)
    places = {lane: _LEFT + _COLUMN // 2 + index * _COLUMN for index, lane in enumerate(lanes)}
    width, bottom = max(_LEFT + len(lanes) * _COLUMN + _RIGHT, _NARROWEST), _TOP + (len(lines) + bool(left)) * _ROW
    parts = [f"<svg width={width} height={bottom + 12} viewBox='0 0 {width} {bottom + 12}' role=img aria-label='sequence of events'>"]
    for lane, x in places.items():
        parts.append(f"<line class=life x1={x} y1={_TOP - 14} x2={x} y2={bottom} /><rect class=head x={x - 78} y=8 width=156 height=30 rx=6 />"
                     f"<text class=name x={x} y=28 text-anchor=middle>{escape(_fitted(lane, 20))}</text>")
    row, last = _TOP, -1.0
    for index, line in enumerate(lines):
        if left and index == len(lines) // 2:
            parts.append(f"<text class=soft x={width / 2} y={row + 14} text-anchor=middle>… {left:,} lines more of the same …</text>")
            row += _ROW
        # The time once for all that happens at one instant.
        when = f"<text class=soft x={_LEFT - 12} y={row + 16} text-anchor=end>{line.at_s:.3f} s</text>" if line.at_s != last else ""
        parts.append(when + _drawn(line, places, row, width))
        row, last = row + _ROW, line.at_s
    return "".join(parts) + "</svg>"


def _drawn(line: Line, places: dict[str, int], row: int, width: int) -> str:
    if not line.lane or (line.words.startswith("✗") and line.lane not in places):
        return f"<rect class=band x=0 y={row} width={width} height={_ROW - 4} rx=4 /><text class=bad x={_LEFT} y={row + 17}>{escape(_fitted(line.words, int(width / 6.6) - 12))}</text>"
    here = places[line.lane]
    if line.to and line.to != line.lane:
        return _call(line, here, places[line.to], row)
    if line.words.startswith("✗"):
        return f"<line class=cut x1={here - 70} y1={row + 22} x2={here + 70} y2={row + 22} /><text class=bad x={here} y={row + 15} text-anchor=middle>{escape(_fitted(line.words, 24))}</text>"
    words, full = line.words.removeprefix("→ "), escape(line.words)
    words = UNHEARD if words.endswith(UNHEARD) else words
    dot = "dot" if words.startswith("●") else "tip"
    return (f"<circle class={dot} cx={here} cy={row + 12} r=4 /><text x={here + 9} y={row + 16}><title>{full}</title>{escape(_fitted(words.removeprefix('● '), 26))}</text>")


def _call(line: Line, here: int, there: int, row: int) -> str:
    """An arrow. Of a call that is struck it is red: with a cross where it did not arrive, or on the way back of an answer that did not."""
    step, y = (9 if there > here else -9), row + 20
    what = line.words.removeprefix("→ ").partition("  ⚡")[0]
    what = what.rpartition(">")[2].removeprefix(f"{line.to}.")
    kind, tip, says = "call", f"<path class=tip d='M{there} {y}l{-step} -4v8z'/>", ""
    if line.fault:
        fault = catalogue.find(line.fault)
        kind, says = "struck", fault.says
        arrives = fault.effect is not catalogue.Effect.NONE
        cross = there - (4 if arrives else 1) * step
        tip = (f"<path class=bad d='M{there} {y}l{-step} -4v8z'/>" if arrives else "") + (
            f"<path class=cut d='M{cross - 5} {y - 5}l10 10m0-10l-10 10'/>" if fault.caller != "ok" else "")
    told = f"<tspan class=bad> ⚡ {escape(line.fault)}</tspan><title>{escape(says)}</title>" if line.fault else ""
    at, anchor = (here + 10, "start") if there > here else (here - 10, "end")
    return f"<line class={kind} x1={here} y1={y} x2={there - step} y2={y} />{tip}<text x={at} y={row + 11} text-anchor={anchor}>{escape(_fitted(what, 34))}{told}</text>"


def _fitted(words: str, most: int) -> str:
    return words if len(words) <= most else words[:most - 1] + "…"


# ── the matrix ──


def _matrix(report: Report) -> str:
    seen = {fault for row in report.matrix.values() for fault in row}
    order = {fault.id: number for number, fault in enumerate(catalogue.CATALOGUE)}
    faults = sorted(seen, key=lambda spec: (order[catalogue.find(spec).id], spec))
    head = "".join(f"<th title='{escape(catalogue.find(fault).says, quote=True)}'><span>{escape(fault)}</span></th>" for fault in faults)
    rows = "".join(f"<tr><th>{escape(site)}</th>{''.join(_cell(site, fault, row.get(fault, '')) for fault in faults)}</tr>" for site, row in report.matrix.items())
    marks = {mark for row in report.matrix.values() for mark in row.values()}
    legend = "".join(f"<li><i class={kind}>{mark}</i> {escape(says)}</li>" for mark, (kind, says) in _MARKS.items() if mark in marks)
    return (f"<h2>Every fault at every point, alone</h2><div class=matrix><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
            f"<ul class=legend>{legend}<li>blank: cannot strike here, or another execution covers it</li></ul>")


def _cell(site: str, fault: str, mark: str) -> str:
    if mark not in _MARKS:
        return f"<td>{escape(mark)}</td>"
    kind, says = _MARKS[mark]
    return f"<td title='{escape(f'{site}, {fault}: {says}', quote=True)}'><i class={kind}>{mark}</i></td>"

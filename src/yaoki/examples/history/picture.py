"""Draw the story as one picture (SVG): what was written, what arrived, where the beats got to, what the auditor said."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from yaoki.examples.history.story import LOST, Mark, Told

WIDTH, LEFT, RIGHT, TOP = 1080, 150, 24, 96
LANE = 44
LANES = ("written", "in the bucket", "beats written", "beats arrived", "auditor says", "findings")

INK, FAINT, GRID = "#1f2933", "#6b7785", "#dde3e9"
GOOD, BAD, WARN, BEAT = "#1b7f5c", "#b4232a", "#b5651d", "#7a8da1"
VERDICTS = {"QUIET": ("#cfe8dd", GOOD), "FLOWING": ("#b3dccb", GOOD), "UNKNOWN": ("#e6e9ed", FAINT), "LOSS": ("#f6d5cf", BAD),
            "TRIGGER_STUCK": ("#f2b8b5", BAD), "STREAM_STUCK": ("#f2b8b5", BAD), "SKIPPED_INTERVAL": ("#f3dfc1", WARN)}

Scale = Callable[[float], float]


def draw(told: Told) -> str:
    """The picture as text of an SVG file."""
    end = max(mark.at for mark in told.marks) + 0.5
    height = TOP + LANE * len(LANES) + 74

    def x(at: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * max(at, 0.0) / end, 1)

    parts = [
        (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}" role="img">'),
        "<title>A trigger stops, two versions are lost, and an auditor names them</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(LEFT, 30, "The known loss: a trigger stops, two versions never arrive, nothing says so. The auditor does.",
              size=17, weight=600),
        _text(LEFT, 52, f"Named {told.named_after_s:.1f} s after the first lost write (bound {told.loss_bound_s:.0f} s), standstill "
              f"called {told.stuck_after_s:.1f} s after it began (bound {told.stuck_bound_s:.0f} s); repaired and read again.",
              fill=FAINT),
        *_grid(end, x), *_outage(told.marks, x), *_lanes()]
    parts += _notes(told.marks, x, TOP + LANE * len(LANES) + 24)
    parts += _verdicts([mark for mark in told.marks if mark.what == "verdict"], end, x)
    for what in ("beat", "beat_arrived", "write", "arrive", "finding"):
        parts += _lane_of_marks([mark for mark in told.marks if mark.what == what], x)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _lane_y(lane: str) -> float:
    return TOP + LANE * LANES.index(lane) + LANE / 2


def _lanes() -> list[str]:
    return [_text(LEFT - 12, _lane_y(lane) + 4, lane, anchor="end", weight=600) for lane in LANES]


def _grid(end: float, x: Scale) -> list[str]:
    bottom = TOP + LANE * len(LANES)
    parts = [f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{TOP + LANE * n}" y2="{TOP + LANE * n}" stroke="{GRID}"/>'
             for n in range(len(LANES) + 1)]
    step = 5 if end > 25 else 2
    for at in range(0, int(end) + 1, step):
        parts.append(f'<line x1="{x(at)}" x2="{x(at)}" y1="{TOP}" y2="{bottom}" stroke="{GRID}" stroke-dasharray="2 4"/>')
        parts.append(_text(x(at), TOP - 8, f"{at} s", anchor="middle", fill=FAINT, size=11))
    return parts


def _outage(marks: list[Mark], x: Scale) -> list[str]:
    began = next((mark.at for mark in marks if mark.what == "stop"), None)
    ended = next((mark.at for mark in marks if mark.what == "start"), None)
    if began is None or ended is None:
        return []
    return [(f'<rect x="{x(began)}" y="{TOP}" width="{round(x(ended) - x(began), 1)}" height="{LANE * len(LANES)}" '
            'fill="#b4232a" fill-opacity="0.07"/>'),
            _text((x(began) + x(ended)) / 2, TOP + 12, "trigger stopped", anchor="middle", fill=BAD, size=11)]


def _lane_of_marks(marks: list[Mark], x: Scale) -> list[str]:
    """One lane. Dots that would cover each other are drawn side by side."""
    parts: list[str] = []
    free_from = 0.0
    for mark in marks:
        at = x(mark.at)
        if mark.what in {"beat", "beat_arrived"}:
            y = _lane_y("beats written" if mark.what == "beat" else "beats arrived")
            parts.append(f'<line x1="{at}" x2="{at}" y1="{y - 8}" y2="{y + 8}" stroke="{BEAT}" stroke-width="2"/>')
            continue
        at = max(at, free_from)
        free_from = at + 21
        lost = mark.version in LOST
        if mark.what == "write":
            parts += _dot(at, _lane_y("written"), str(mark.version), BAD if lost else GOOD)
        elif mark.what == "arrive":
            parts += _dot(at, _lane_y("in the bucket"), str(mark.version), WARN if lost else GOOD)
        else:
            parts += _dot(at, _lane_y("findings"), str(mark.version), BAD, hollow=True)
    return parts


def _verdicts(marks: list[Mark], end: float, x: Scale) -> list[str]:
    parts = []
    y = _lane_y("auditor says")
    for mark, after in zip(marks, [*(mark.at for mark in marks[1:]), end], strict=True):
        fill, ink = VERDICTS.get(mark.text, ("#e6e9ed", FAINT))
        width = round(max(x(after) - x(mark.at), 2.0), 1)
        parts.append(f'<rect x="{x(mark.at)}" y="{y - 13}" width="{width}" height="26" rx="3" fill="{fill}">'
                     f"<title>{escape(mark.text)}</title></rect>")
        label = mark.text.replace("_", " ").lower()
        if width > 7 * len(label):
            parts.append(_text(x(mark.at) + width / 2, y + 4, label, anchor="middle", fill=ink, size=11, weight=600))
    return parts


def _notes(marks: list[Mark], x: Scale, y: float) -> list[str]:
    """What people and the auditor did, below the lanes, with a line up to its time."""
    words = {"stop": "trigger stops", "start": "made anew at LATEST", "repair": "repaired through the owner's function"}
    parts = []
    for row, mark in enumerate(mark for mark in marks if mark.what in words):
        at, line = x(mark.at), y + 18 * row - 8
        parts.append(f'<line x1="{at}" x2="{at}" y1="{TOP}" y2="{line}" stroke="{INK}" stroke-width="1"/>')
        right = at > WIDTH * 0.7
        parts.append(_text(at - 6 if right else at + 6, line + 4, f"{mark.at:.1f} s  {words[mark.what]}",
                           anchor="end" if right else "start", size=12))
    return parts


def _dot(at: float, y: float, label: str, colour: str, *, hollow: bool = False) -> list[str]:
    fill, ink = ("#ffffff", colour) if hollow else (colour, "#ffffff")
    return [f'<circle cx="{at}" cy="{y}" r="10" fill="{fill}" stroke="{colour}" stroke-width="2"/>',
            _text(at, y + 4, label, anchor="middle", fill=ink, size=12, weight=600)]


def _text(at: float, y: float, words: str, *, anchor: str = "start", fill: str = INK, size: int = 13, weight: int = 400) -> str:
    return (f'<text x="{round(at, 1)}" y="{round(y, 1)}" text-anchor="{anchor}" fill="{fill}" font-size="{size}" '
            f'font-weight="{weight}">{escape(words)}</text>')

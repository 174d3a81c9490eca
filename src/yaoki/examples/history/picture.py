"""Draw the story as one picture (SVG): what was written, what arrived, where the beats got to, what the auditor said and when.

    written      dots that fall into the bucket, or stop halfway
    heartbeats   the same path, thinner: they show when it is open
    auditor      its verdict as a band
    promises     from the loss to the moment it was named, and how long that was allowed to take
    below        what happened, in words, by number
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from yaoki.examples.history.story import LOST, Mark, Told
from yaoki.examples.history.svg import bar, cross, dot, fall, line, picture, text, turn

WIDTH, LEFT, RIGHT = 1080.0, 176.0, 40.0

# What is written behind the end of a promise needs so much of the width.
PROMISED = 170.0

# Heights: of rows, and between them.
AXIS, WRITTEN, BUCKET, BEATS, BEATS_ARRIVED, AUDITOR, PROMISES = 104.0, 134.0, 226.0, 274.0, 304.0, 356.0, 404.0
PROMISE = 26.0
WORDS = PROMISES + 3 * PROMISE + 22
DOT = 23.0
LOST_AT = WRITTEN + 36

BANDS = {"QUIET": ("quiet", "good"), "FLOWING": ("flowing", "good"), "UNKNOWN": ("unknown", "faint"), "LOSS": ("stuck", "bad"),
         "TRIGGER_STUCK": ("stuck", "bad"), "STREAM_STUCK": ("stuck", "bad"), "SKIPPED_INTERVAL": ("skipped", "warn")}

Scale = Callable[[float], float]


class Promise(msgspec.Struct, frozen=True):
    """Something that had to be named in time."""

    what: str
    began: float
    named: float
    bound_s: float


def draw(told: Told) -> str:
    """The picture as text of an SVG file."""
    promises = promises_of(told)
    wide = WIDTH - LEFT - RIGHT - 14
    end = max([mark.at for mark in told.marks] + [(each.began + each.bound_s) * wide / (wide - PROMISED) for each in promises]) + 0.6

    def x(at: float) -> float:
        return LEFT + 14 + wide * max(at, 0.0) / end

    words = story_of(told)
    shapes = [*_heading(told), *_grid(end, x), *_outage(told, x), *_labels(), *_numbers(words, x), *_beats(told, x),
              *_versions(told, x), *_verdicts(told, end, x), *_promises(promises, x), *_words(words)]
    return picture(WIDTH, WORDS + 24 * len(words) + 14, "A trigger stops, two versions are lost, and an auditor names them", shapes)


# ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────────────


def _when(told: Told, what: str, version: int = -1) -> float | None:
    return next((mark.at for mark in told.marks if mark.what == what and mark.version in {version, -1}), None)


def promises_of(told: Told) -> list[Promise]:
    """What had to be named in time, and when it was."""
    found = []
    stopped = _when(told, "stop")
    stuck = next((mark.at for mark in told.marks if mark.what == "verdict" and mark.text == "TRIGGER_STUCK"), None)
    if stopped is not None and stuck is not None:
        found.append(Promise("the standstill", stopped, stuck, told.stuck_bound_s))
    for version in LOST:
        began, named = _when(told, "write", version), _when(told, "finding", version)
        if began is not None and named is not None:
            found.append(Promise(f"version {version}", began, named, told.loss_bound_s))
    return found


def story_of(told: Told) -> list[tuple[float, str]]:
    """What happened, in words: (when, sentence)."""
    named = [each for each in promises_of(told) if each.what.startswith("version")]
    stuck = [each for each in promises_of(told) if not each.what.startswith("version")]
    sentences = [
        (_when(told, "stop"), "The trigger stops. No error is raised, no log is written, no metric moves."),
        *((each.named, _stuck_words(each)) for each in stuck),
        (named[0].named if named else None, "The auditor names version 3, and then 4, from its own copy of the stream."),
        (_when(told, "start"), "Somebody makes the trigger anew, at LATEST, as many would: 3 and 4 are skipped for ever."),
        (_when(told, "repair"), "Repaired through the owner's own function, and believed when read again from the bucket.")]
    return sorted((at, words) for at, words in sentences if at is not None)


def _stuck_words(promise: Promise) -> str:
    return (f"The auditor: trigger stuck, {promise.named - promise.began:.1f} s after it began. Heartbeats are in the stream, and do "
            "not reach the bucket.")


# ── the shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _heading(told: Told) -> list[str]:
    slowest = max((each.named - each.began for each in promises_of(told) if each.what.startswith("version")), default=told.named_after_s)
    under = (f"{told.quiet_for_s:.0f} s in which nothing changes: not a word. Two versions lost: named within {slowest:.1f} s, "
             f"repaired after {told.repaired_after_s:.1f} s. Nothing in the pipeline was changed for it.")
    return [text(28, 40, "A trigger stops. Two versions never arrive. Nothing says so, but the auditor does.", size=20, weight=700),
            text(28, 64, under, "faint")]


def _labels() -> list[str]:
    right = LEFT - 16
    return [text(right, WRITTEN + 5, "written to the table", weight=600, anchor="end"),
            text(right, BUCKET + 5, "at rest in the bucket", weight=600, anchor="end"),
            text(right, (BEATS + BEATS_ARRIVED) / 2 + 4, "heartbeats", weight=600, anchor="end"),
            text(right, AUDITOR + 5, "the auditor says", weight=600, anchor="end")]


def _grid(end: float, x: Scale) -> list[str]:
    step = 5 if end > 25 else 2
    bottom = PROMISES + 3 * PROMISE - 10
    lines = [line(LEFT, y, WIDTH - RIGHT, y) for y in (WRITTEN, BUCKET)]
    for at in range(0, int(end) + 1, step):
        lines += [line(x(at), AXIS + 4, x(at), bottom, dash="1 5"), text(x(at), AXIS - 12, f"{at} s", "faint", size=11, anchor="middle")]
    return lines


def _outage(told: Told, x: Scale) -> list[str]:
    began, ended = _when(told, "stop"), _when(told, "start")
    if began is None or ended is None:
        return []
    top, bottom = AXIS + 6, AUDITOR - 26
    shade = bar(x(began), (top + bottom) / 2, x(ended), bottom - top, "bad", opacity=0.09)
    return [shade, text(x(began) + 9, BEATS_ARRIVED + 17, "trigger stopped", "bad", size=12, weight=600)]


def _versions(told: Told, x: Scale) -> list[str]:
    written = _spread([mark for mark in told.marks if mark.what == "write"], x)
    arrived = _spread([mark for mark in told.marks if mark.what == "arrive"], x)
    lines, dots, lost_ends = [], [], list[float]()
    for version, at in written.items():
        lost, to = version in LOST, arrived.get(version)
        if not lost and to is not None:
            lines.append(fall(at, WRITTEN, to, BUCKET, "good"))
        if lost:
            end = LOST_AT + 18 * (len(lost_ends) % 2)
            lost_ends.append(end)
            lines += [line(at, WRITTEN, at, end - 6, "bad", width=2), cross(at, end, "bad")]
            if to is not None:  # brought back later: along below, and down where it was repaired
                lines += [line(at + 12, end, to - 26, end, "warn", width=1.6, dash="4 5"), turn(to - 26, end, to, BUCKET, "warn")]
        dots.append(dot(at, WRITTEN, str(version), "bad" if lost else "good"))
    dots += [dot(at, BUCKET, str(version), "warn" if version in LOST else "good") for version, at in arrived.items()]
    return lines + dots


def _spread(marks: list[Mark], x: Scale) -> dict[int, float]:
    """Where each version's dot goes: those that would cover each other are drawn side by side."""
    places: dict[int, float] = {}
    free = 0.0
    for mark in marks:
        places[mark.version] = max(x(mark.at), free)
        free = places[mark.version] + DOT
    return places


def _beats(told: Told, x: Scale) -> list[str]:
    written = {mark.version: mark.at for mark in told.marks if mark.what == "beat"}
    arrived = {mark.version: mark.at for mark in told.marks if mark.what == "beat_arrived"}
    shapes = []
    for number, at in written.items():
        to = arrived.get(number)
        if to is None:
            shapes += [line(x(at), BEATS, x(at), BEATS + 11, "beat", width=1.6), cross(x(at), BEATS + 15, "bad", size=3, width=1.6)]
        else:
            shapes += [fall(x(at), BEATS, x(to), BEATS_ARRIVED, "beat", width=1.6), bar(x(to) - 3, BEATS_ARRIVED, x(to) + 3, 6, "beat")]
        shapes.append(bar(x(at) - 3, BEATS, x(at) + 3, 6, "beat"))
    return shapes


def _verdicts(told: Told, end: float, x: Scale) -> list[str]:
    marks = [mark for mark in told.marks if mark.what == "verdict"]
    shapes = []
    for mark, after in zip(marks, [*(mark.at for mark in marks[1:]), end], strict=True):
        fill, ink = BANDS.get(mark.text, ("unknown", "faint"))
        label, wide = mark.text.replace("_", " ").lower(), x(after) - x(mark.at)
        shapes.append(bar(x(mark.at) + 1, AUDITOR, x(after) - 1, 30, fill, title=mark.text))
        if wide > 8 * len(label):
            shapes.append(text(x(mark.at) + wide / 2, AUDITOR + 4.5, label, ink, weight=700, anchor="middle"))
    return shapes


def _promises(promises: list[Promise], x: Scale) -> list[str]:
    shapes = [text(LEFT - 16, PROMISES + PROMISE + 4, "named in time", weight=600, anchor="end")]
    for row, each in enumerate(promises):
        y, promised = PROMISES + PROMISE * row, each.began + each.bound_s
        shapes += [bar(x(each.began), y, x(promised), 8, "unknown"), bar(x(each.began), y, x(each.named), 8, "bad"),
                   line(x(promised), y - 8, x(promised), y + 8, "faint", width=1.6),
                   text(x(each.began) - 10, y + 4, each.what, "faint", size=12, anchor="end"),
                   text(x(promised) + 10, y + 4, f"after {each.named - each.began:.1f} s of {each.bound_s:.0f} s promised", size=12)]
    return shapes


def _numbers(words: list[tuple[float, str]], x: Scale) -> list[str]:
    """The number of each sentence, at its time."""
    shapes, free = [], 0.0
    for number, (at, _) in enumerate(words, 1):
        place = max(x(at), free)
        free = place + 17
        shapes += [line(x(at), AXIS + 6, x(at), AUDITOR + 18, "ink", width=0.8), dot(place, AXIS + 6, str(number), "ink", radius=8)]
    return shapes


def _words(words: list[tuple[float, str]]) -> list[str]:
    shapes = [line(28, WORDS - 14, WIDTH - 28, WORDS - 14)]
    for row, (at, sentence) in enumerate(words):
        y = WORDS + 12 + 24 * row
        shapes += [dot(38, y - 4, str(row + 1), "ink", radius=8), text(96, y, f"{at:.1f} s", "faint", anchor="end"), text(108, y, sentence)]
    return shapes

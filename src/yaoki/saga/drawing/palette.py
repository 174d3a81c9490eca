"""Colours of a picture, by tone (`Look.tone`), for light and for dark paper.

Text on its fill has a contrast of at least 4.5 to 1, and lines on the paper of 3 to 1 (WCAG 2.2, 1.4.3 and 1.4.11; a test
computes it). A tone is never told by colour alone: the mark before the title says it too.
"""

from __future__ import annotations

from typing import NamedTuple


class Ink(NamedTuple):
    fill: str
    line: str
    text: str


LIGHT = {
    "plain": Ink("#ffffff", "#5b6573", "#1c2330"),
    "good": Ink("#e6f5ea", "#2a7d46", "#14532b"),
    "bad": Ink("#fdecea", "#c0362c", "#8a1c14"),
    "busy": Ink("#fff4d6", "#96690a", "#6b4a00"),
    "gone": Ink("#f1f2f4", "#7b8492", "#565f6d"),
    "idle": Ink("#ffffff", "#848d9b", "#606977"),
}

DARK = {
    "plain": Ink("#1b212b", "#8b96a6", "#e6eaf0"),
    "good": Ink("#12301d", "#4fb373", "#a8e6bf"),
    "bad": Ink("#3a1613", "#f0776c", "#ffc2bc"),
    "busy": Ink("#352806", "#d9a53a", "#ffe0a0"),
    "gone": Ink("#1e232b", "#727c8b", "#a3acba"),
    "idle": Ink("#141920", "#6f7988", "#a3acba"),
}

PAPER = ("#ffffff", "#10141a")

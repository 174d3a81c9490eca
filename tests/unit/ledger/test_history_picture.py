"""The picture of the known loss: whatever the times were, nothing is cut off at its edge."""

from __future__ import annotations

import re

import pytest

from yaoki.examples.history.picture import WIDTH, draw
from yaoki.examples.history.story import Mark, Told

# A letter of the picture's font is about so wide, in font sizes (measured in a browser: 0.44 to 0.46).
LETTER = 0.48


def told(repaired_s: float) -> Told:
    marks = [Mark(0.0, "write", version=1), Mark(0.6, "write", version=2), Mark(8.1, "stop"), Mark(8.2, "write", version=3), Mark(9.4, "write", version=4),
             Mark(13.0, "finding", version=3), Mark(13.0, "verdict", text="TRIGGER_STUCK"), Mark(13.8, "finding", version=4), Mark(14.3, "start"),
             Mark(16.4, "write", version=5), Mark(repaired_s, "repair")]
    return Told(marks=marks, quiet_for_s=5.0, stuck_bound_s=9.0, loss_bound_s=9.0, stuck_after_s=4.9, named_after_s=6.1, repaired_after_s=9.9)


@pytest.mark.parametrize("repaired_s", [17.0, 18.1, 24.0, 60.0])
def test_no_word_is_cut_off_at_the_right(repaired_s: float):
    drawn = re.findall(r'<text x="([\d.]+)" y="[\d.]+" class="\w+" font-size="([\d.]+)"[^>]*text-anchor="start">([^<]*)', draw(told(repaired_s)))
    assert any("promised" in words for _, _, words in drawn)
    for x, size, words in drawn:
        assert float(x) + LETTER * float(size) * len(words) < WIDTH, words

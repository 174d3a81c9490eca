"""The known loss on a real DynamoDB stream, Lambda function and bucket: named within the bound, repaired, proven."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from yaoki.examples.history.picture import draw
from yaoki.examples.history.story import KEY, play

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]


async def test_the_known_loss_is_named_within_its_bound_and_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "restored afterwards")
    said: list[str] = []
    told = await play(tmp_path, said.append, quiet_s=3)

    assert told.before_repair == [f"logs/{KEY}-{n}.log" for n in (1, 2, 5)]  # the published picture of the loss
    assert told.after_repair == [f"logs/{KEY}-{n}.log" for n in (1, 2, 3, 4, 5)]
    assert [line.split(":")[0] for line in told.findings] == [f"missing {KEY} 3", f"missing {KEY} 4"]
    assert all("repaired; read again from the sink" in line for line in told.findings)

    verdicts = [mark.text for mark in told.marks if mark.what == "verdict"]
    stopped = next(mark.at for mark in told.marks if mark.what == "stop")
    before = [mark.text for mark in told.marks if mark.what == "verdict" and mark.at < stopped]
    assert before[-1] == "QUIET"  # a time in which nothing changes raises nothing
    assert set(before) <= {"UNKNOWN", "QUIET", "FLOWING"}
    assert "TRIGGER_STUCK" in verdicts
    assert verdicts[-1] in {"QUIET", "FLOWING"}

    # The bounds hold for an auditor that runs: what it stood still is the machine's; and two seconds for the others who use that.
    assert told.named_after_s <= told.loss_bound_s + told.stood_still_s + 2
    assert told.stuck_after_s <= told.stuck_bound_s + told.stood_still_s + 2
    assert any("LATEST" in line for line in told.lint)

    picture = ET.fromstring(draw(told))
    texts = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "trigger stopped" in texts

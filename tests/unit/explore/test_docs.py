"""What the pages say is so: their code runs, and the table of faults is the catalogue."""

from __future__ import annotations

import re
from pathlib import Path

from yaoki.chaos import faults
from yaoki.cli.explore import command
from yaoki.explore import explore

DOCS = Path(__file__).parents[3] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_tutorial_finds_the_bug_and_the_remedy_mends_it():
    program, remedy = blocks("tutorial/explore.md")
    names: dict = {}
    exec(program, names)
    report = explore(names["checkout"])
    assert report.stories[0].token == "yk1:payment.book@0=call.lost_ack"
    shown = re.findall(r"```console\n\$ yk explore[^\n]*\n(.*?)```", (DOCS / "tutorial/explore.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown[0].strip() == report.stories[0].text().strip()
    exec(program.replace('            await payment.book("order-7")\n', remedy), names)
    mended = explore(names["checkout"], faults=2)
    assert mended.ok
    assert without_speed(shown[1]) == without_speed(mended.summary())


def without_speed(text: str) -> str:
    return re.sub(r" in [0-9.]+ s(, [0-9,]+/s)?", "", text).strip()


def test_the_references_example_runs():
    names: dict = {}
    exec(blocks("reference/explore.md")[0], names)
    assert explore(names["buy"]).ok


def test_every_fault_and_every_option_is_in_the_reference():
    text = (DOCS / "reference/explore.md").read_text(encoding="utf-8")
    assert [fault.id for fault in faults.CATALOGUE if f"| `{fault.id}` |" not in text] == []
    options = [name for parameter in command.params for name in parameter.opts if name.startswith("--")]
    assert [name for name in options if f"{name}" not in text] == []

"""The figures that the pages name are those that were measured: `benchmarks/results` has them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks/results"

# What a benchmark's clients still wait for after so many seconds never comes.
NEVER_S = 325.0

# Where a figure of the README stands in the results: a part of the row, its number in the row (from 0), the file, the claim.
FIGURES = [
    ("sagas.py", 0, "sagas.json", "times DBOS, 256 in flight"),
    ("sagas_postgres.py", 0, "sagas_postgres_runs.json", "times DBOS, 256 in flight"),
    ("messages.py", 0, "messages.json", "publish with state, batched, x one by one"),
    ("messages.py", 1, "messages.json", "consume, x SKIP LOCKED one by one"),
    ("ledger.py", 0, "ledger.json", "append + seal, SQLite FULL, batches of 100 (changes/s, median of rounds)"),
    ("explore.py", 0, "explore.json", "4-step saga, executions per CPU second"),
    ("explore.py", 1, "explore.json", "travel agency with its real ASGI services, executions per CPU second"),
    ("brownout.py", 0, "brownout.json", "10 % budget, starts empty, 100,000 clients (s)"),
]


def results(name: str) -> Any:
    return json.loads((RESULTS / name).read_text("utf-8"))


@pytest.mark.parametrize("page", ["README.md", "README.ja.md"])
@pytest.mark.parametrize(("script", "place", "file", "claim"), FIGURES)
def test_a_figure_of_the_readme_was_measured(page: str, script: str, place: int, file: str, claim: str):
    row = next(line for line in (ROOT / page).read_text("utf-8").splitlines() if f"| `{script}` |" in line)
    figures = [float(each.replace(" ", "")) for each in re.findall(r"(?<![\d.])(\d{1,3}(?: \d{3})+|\d+)(?![\d.])", re.sub(r"DBOS [\d.]+", "", row.split("|")[2]))]
    measured = next(each["value"] for each in results(file)["claims"] if each["name"] == claim)
    # A later run on a quiet machine differs by some percent; a page that was forgotten differs by more.
    assert figures[place] == pytest.approx(measured, rel=0.15), f"{page} says {figures[place]:g}, {file} {measured:g}: {claim}"


def test_the_table_of_the_brown_out_is_what_was_simulated():
    seconds = results("brownout.json")["raw"]["seconds"]
    for name in ("docs/explanation/brown-out.md", "docs/reference/policies/retry.md"):
        rows = dict(re.findall(r"^\| \*{0,2}([^|*]+?)\*{0,2} \| ([^|]+\|[^|]+\|[^|]+\|[^|]+) \|$", (ROOT / name).read_text("utf-8"), re.MULTILINE))
        compared = 0
        for plan, measured in seconds.items():
            if plan in rows:
                said = [NEVER_S if each.strip() == "never" else float(each) for each in rows[plan].split("|")]
                assert said == measured, f"{name}: {plan}"
                compared += 1
        assert compared >= 5


def test_every_defect_of_the_zoo_is_found_as_the_readme_says():
    zoo = results("explore.json")["raw"]["zoo"]
    assert f"{len(zoo)} seeded defects found by name, no false alarm" in (ROOT / "README.md").read_text("utf-8")
    assert str(len(zoo)) in (ROOT / "README.ja.md").read_text("utf-8")
    assert all(each["expected"] in each["found"] and not each["false_alarms"] for each in zoo)


def test_how_many_executions_the_travel_agency_takes_is_said_as_measured():
    executions = results("explore.json")["raw"]["travel"]["singles"]
    assert f"{executions} executions, one without a fault and {executions - 1} with one" in (ROOT / "README.md").read_text("utf-8")
    assert f"実行 {executions} 回（故障なし 1 回、一つの故障 {executions - 1} 回）" in (ROOT / "README.ja.md").read_text("utf-8")


def test_how_many_executions_the_trip_without_an_orchestrator_takes_is_said_as_measured():
    measured = results("explore_choreographed.json")["raw"]
    assert measured["finished"]
    assert measured["violations"] == 0
    pairs = f"{measured['pairs']:,}".replace(",", " ")
    assert f"{measured['singles']} executions with one fault, {pairs} with two, no invariant broken" in (ROOT / "README.md").read_text("utf-8")
    assert f"一つの故障 {measured['singles']} 回、二つの故障 {pairs} 回の実行" in (ROOT / "README.ja.md").read_text("utf-8")


def test_the_conformance_table_is_what_the_libraries_answered():
    text = (ROOT / "docs/explanation/conformance.md").read_text("utf-8")
    head = [each.strip() for each in next(line for line in text.splitlines() if line.startswith("| | yaoki")).split("|")[2:-1]]
    raw = results("policies_conformance.json")["raw"]
    for question in raw["yaoki"]:
        cells = [each.strip() for each in next(line for line in text.splitlines() if line.startswith(f"| {question} |")).split("|")[2:-1]]
        for library, cell in zip(head, cells, strict=True):
            told = raw[library].get(question, "–")
            assert re.sub(r", [\d.]+ s$", "", cell) == re.sub(r", [\d.]+ s$", "", told), (question, library)

"""What the demo says: its figures, its table, its progress on a terminal and elsewhere."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from yaoki.errors import ConfigError
from yaoki.examples.travel.audit import Report
from yaoki.examples.travel.demo import show
from yaoki.examples.travel.demo.play import Outcome, Plan, Play, Progress
from yaoki.examples.travel.demo.report import table, to_dict
from yaoki.examples.travel.demo.show import Show


def outcome(folder: Path, **figures: Any) -> Outcome:
    plan = Plan(trips=10, faults=0.2, kills=1, seed=3, folder=folder)
    progress = Progress(phase="booking", ended=Counter(completed=7, undone=3), under_way=0, kills=Counter(orchestrator=1),
                        service_kills=Counter(hotel=2, flight=1), faults=Counter({"killed": 3, "reply lost": 2}), seconds=1.234, cpu_s=2.0)
    report = Report(trips=10, completed=7, undone=3)
    for name, value in figures.items():
        report.find(name, "trip-00001 has something", value)
    return Outcome(plan, report, progress)


def test_the_figures_are_those_of_the_audit_and_of_what_was_done(tmp_path: Path):
    found = json.loads(json.dumps(to_dict(outcome(tmp_path))))
    assert (found["trips"], found["completed"], found["undone"], found["ok"]) == (10, 7, 3, True)
    assert (found["orchestrator_kills"], found["service_kills"], found["faults_injected"]) == (1, 3, 5)
    assert (found["seconds"], found["cpu_seconds"], found["seed"]) == (1.23, 2.0, 3)


def test_the_table_says_whether_it_is_clean_and_shows_the_first_findings(tmp_path: Path):
    assert "nothing is left over" in table(outcome(tmp_path))
    bad = outcome(tmp_path, orphaned_effects=2)
    bad.report.findings += [f"lost: trip-{number}" for number in range(30)]
    text = table(bad)
    assert "NOT CLEAN" in text
    assert "! orphaned_effects: trip-00001 has something" in text
    assert "! and 21 more" in text


@pytest.mark.parametrize("figure", ["blocked", "lost", "duplicated_effects", "orphaned_effects", "charged_twice", "overbooked", "unbalanced"])
def test_one_finding_of_any_kind_is_not_clean(tmp_path: Path, figure: str):
    assert outcome(tmp_path).report.clean
    assert not outcome(tmp_path, **{figure: 1}).report.clean


def test_without_a_terminal_there_are_plain_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(show, "LINE_EVERY_S", 1000.0)
    out, made = io.StringIO(), outcome(tmp_path)
    with Show(made.plan, out) as lines:
        lines.update(made.progress)
        lines.update(made.progress)  # the same phase an instant later: not worth a line
    assert out.getvalue().splitlines() == [
        "10 trips, 20% of all requests fail, the orchestrator is killed 1 times, seed 3",
        "   1.2 s  booking: 7 completed, 3 undone, 0 under way; killed: orchestrators 1, services 3"]
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_there_is_a_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "hotel.faults").write_text("killed\tPOST /bookings\nslow\tPOST /bookings\n")
    out, made = Terminal(), outcome(tmp_path)
    with Show(made.plan, out) as panel:
        panel.update(made.progress)
    text = out.getvalue()
    assert "killed 1 · slow 1" in text
    assert "flight 1 · hotel 2 · orchestrator 1" in text
    assert "█" in text


@pytest.mark.parametrize("wrong", [{"trips": 0}, {"kills": -1}, {"faults": 1.1}, {"faults": -0.1}, {"port": 80}, {"limit_s": 0}])
def test_a_plan_that_makes_no_sense_is_refused(tmp_path: Path, wrong: dict[str, Any]):
    with pytest.raises(ConfigError):
        Plan(**{"trips": 1, "faults": 0.0, "kills": 0, "seed": 1, "folder": tmp_path, **wrong})


def test_kills_are_drawn_from_the_seed_some_of_them_soon_after_a_start(tmp_path: Path):
    def drawn(seed: int) -> list[tuple[int | None, float]]:
        plan = Plan(trips=1000, faults=0.0, kills=40, seed=seed, folder=tmp_path)
        play = Play(plan, lambda _: None)
        return [play._kill_at(0.5) for _ in range(40)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert {at for at, _ in drawn(1)} == {0, 500}


def test_where_nobody_is_in_charge_the_figures_speak_of_participants_and_messages(tmp_path):
    progress = Progress(phase="done", kills=Counter(hotel=1, front=1, broker=2), service_kills=Counter(hotel=3),
                        faults=Counter({"slow": 2, "delivered twice": 4, "out of order": 1}))
    plan = Plan(trips=10, faults=0.2, kills=4, seed=1, folder=tmp_path, choreographed=True)
    outcome = Outcome(plan, Report(trips=10, completed=10), progress)
    found, text = to_dict(outcome), table(outcome)
    assert (found["participant_kills"], found["broker_kills"], found["message_faults"], found["faults_injected"]) == (2, 2, 5, 7)
    assert "orchestrator" not in text
    assert "5 faults of messages 4 delivered twice, 1 out of order" in text
    assert "2 participants (front 1, hotel 1), and their broker 2 times, killed" in text

"""A live test that failed is run again, alone: what passes each time is named and lets the run pass, anything else does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import run

TESTS = Path(run.__file__).parent


def looks(monkeypatch: pytest.MonkeyPatch, codes: list[int]) -> list[list[str]]:
    """What is run instead of pytest, which ends with these codes."""
    commands: list[list[str]] = []
    left = iter(codes)

    def ran(command: list[str], **_: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=next(left))

    monkeypatch.setattr(run.subprocess, "run", ran)
    return commands


def test_what_passes_each_time_is_named_as_unstable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    commands = looks(monkeypatch, [0, 0, 0])
    assert run.second_look(["a.py::one", "b.py::two"], ["pytest"], {}) == 0
    assert commands == [["pytest", "a.py::one", "b.py::two"]] * 3
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in told[-2:]] == [["UNSTABLE", "a.py::one"], ["UNSTABLE", "b.py::two"]]


@pytest.mark.parametrize("codes", [[1], [0, 1], [0, 0, 1], [0, 2]])
def test_what_fails_once_more_is_red(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], codes: list[int]) -> None:
    looks(monkeypatch, codes)
    assert run.second_look(["a.py::one"], ["pytest"], {}) == 1
    assert "UNSTABLE" not in capsys.readouterr().out


def test_many_failures_are_no_luck_and_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = looks(monkeypatch, [])
    assert run.second_look(["one", "two", "three"], ["pytest"], {}) == 1
    assert commands == []


def test_a_whole_run_passes_red_and_unstable_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CHECKS", [])
    monkeypatch.setattr(run, "compile_once", lambda: None)
    for codes, expected in [([0, 0], 0), ([1, 0], 1), ([0, 1], 1), ([0, 2], 2)]:  # nothing was written down: pytest itself ended badly
        commands = looks(monkeypatch, codes)
        assert run.main([]) == expected
        assert len(commands) == 2


def test_failed_tests_are_written_down_once_each_by_their_ids(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\n@pytest.fixture\ndef bad():\n    yield\n    assert False\n"
        "@pytest.mark.parametrize('n', [1, 2])\ndef test_half(n, bad):\n    assert n == 1\ndef test_good(): pass\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "second_look", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-c",
                           "/dev/null", "--failed-to", str(tmp_path / "failed"), str(tmp_path)], cwd=tmp_path, check=False, capture_output=True,
                          text=True, env={"PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    written = (tmp_path / "failed").read_text().splitlines()
    assert [each.rpartition("::")[2] for each in written] == ["test_half[1]", "test_half[2]"]

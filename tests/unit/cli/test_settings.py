"""Settings: file < environment < flag, each with its origin, and nothing silently ignored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.root import run
from yaoki.cli.frame.settings import SETTINGS, find_file, resolve
from yaoki.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


def test_defaults_say_that_they_are(folder: Path):
    found = resolve(folder, {})
    assert found.keys() == {setting.key for setting in SETTINGS}
    assert {each.origin for each in found.values()} == {"default"}


def test_a_file_is_overridden_by_the_environment_and_both_say_where(folder: Path):
    (folder / "yaoki.toml").write_text('# ours\ndb = "sqlite:///a.db"\n\n[run]\nconcurrency = 7\ngrace = "250ms"\n')
    found = resolve(folder, {"YAOKI_DB": "sqlite:///b.db", "HOME": "/"})
    assert (found["db"].value, found["db"].origin) == ("sqlite:///b.db", "env YAOKI_DB")
    assert (found["run.concurrency"].value, found["run.concurrency"].origin) == (7, "yaoki.toml:5")
    assert (found["run.grace"].value, found["run.grace"].origin) == (0.25, "yaoki.toml:6")


def test_pyproject_is_read_where_it_has_a_section_for_us(folder: Path):
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\ndb = "no"\n\n[tool.yaoki]\ndb = "sqlite:///p.db"\n')
    below = folder / "deep" / "er"
    below.mkdir(parents=True)
    (folder / "deep" / "pyproject.toml").write_text("[project]\n")
    found = resolve(below, {})
    assert (found["db"].value, found["db"].origin) == ("sqlite:///p.db", "pyproject.toml:6")
    (folder / "yaoki.toml").write_text("")
    assert find_file(below) == folder / "yaoki.toml"


@pytest.mark.parametrize(("text", "what"), [
    ('bd = "x"', "did you mean 'db'?"), ("[run]\nconcurency = 3", "did you mean 'run.concurrency'?"),
    ("[run]\nconcurrency = 0", "a whole number above 0"), ('[run]\ngrace = "5"', "a length of time"), ("db = 3", "is a text"),
    ("sagas = [1]", "a list of texts"), ("db = ", "cannot be read"),
])
def test_what_is_wrong_in_a_file_is_an_error_that_names_the_line(folder: Path, text: str, what: str):
    (folder / "yaoki.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"yaoki\.toml") as caught:
        resolve(folder, {})
    assert what in str(caught.value)


def test_an_unknown_variable_is_an_error(folder: Path):
    with pytest.raises(ConfigError, match=r"did you mean 'YAOKI_DB'\?"):
        resolve(folder, {"YAOKI_BD": "x"})
    resolve(folder, {"YAOKI_DEBUG": "1", "YAOKIX": "1"})


def test_lists_come_from_the_environment_with_commas(folder: Path):
    assert resolve(folder, {"YAOKI_SAGAS": "a:b, c:d,"})["sagas"].value == ["a:b", "c:d"]


def test_config_show_prints_values_and_origins(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("YAOKI_RUN_GRACE", "3s")
    assert run(["config", "show", "--origin", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["run.grace"] == {"value": 3.0, "origin": "env YAOKI_RUN_GRACE"}
    assert run(["config", "show", "run.grace"]) == Exit.OK
    assert capsys.readouterr().out == "3s\n"
    assert run(["config", "show", "run.grce"]) == Exit.USAGE


def test_a_flag_beats_both_and_a_broken_file_stops_every_command_that_needs_it(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "yaoki.toml").write_text('db = "sqlite:///file.db"')
    assert run(["runs", "list"]) == Exit.USAGE
    assert "file.db" in capsys.readouterr().err
    assert run(["runs", "list", "--db", "sqlite:///flag.db"]) == Exit.USAGE
    assert "flag.db" in capsys.readouterr().err
    (folder / "yaoki.toml").write_text("bd = 1")
    assert run(["runs", "list"]) == Exit.USAGE
    assert "did you mean 'db'?" in capsys.readouterr().err
    assert run(["version"]) == Exit.OK, "which needs none"

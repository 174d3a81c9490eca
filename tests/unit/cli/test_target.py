"""MODULE:SAGA, and every way in which it can fail to name one."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.root import run
from yaoki.cli.frame.target import load_saga
from yaoki.errors import DefinitionError, UsageError

SAGA = """
from yaoki import Saga
{name} = Saga("{name}", input=dict)

@{name}.step
async def hotel(trip: dict) -> str: ...

@hotel.undo
async def cancel(trip: dict) -> None: ...

@{name}.step(pivot=True)
async def pay(trip: dict, hotel: str) -> int: ...
"""
numbers = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a module under a name of its own into the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)

    def write(text: str) -> str:
        name = f"made_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("made_"):
            del sys.modules[name]


def test_a_saga_is_found_by_its_name_by_its_file_or_as_the_only_one(module: Callable[[str], str]):
    name = module(SAGA.format(name="trip"))
    assert load_saga(f"{name}:trip").name == "trip"
    assert load_saga(name).name == "trip"
    assert load_saga(f"{name}.py").name == "trip"
    assert load_saga(f"{name}.py:trip").name == "trip"


@pytest.mark.parametrize(("target", "what"), [
    ("nowhere:trip", "there is no module 'nowhere' here"), (":trip", "names no module"), ("nowhere.py", "there is no file nowhere.py"),
    ("json:JSONDecoder", "is not a saga but a class"), ("json:dumbs", "has no 'dumbs'"), ("json", "has no saga"),
])
def test_what_names_no_saga(module: Callable[[str], str], target: str, what: str):
    with pytest.raises(UsageError) as caught:
        load_saga(target)
    assert what in str(caught.value)
    assert caught.value.do


def test_hints(module: Callable[[str], str]):
    name = module(SAGA.format(name="trip") + SAGA.format(name="order"))
    with pytest.raises(UsageError, match="did you mean 'trip'") as caught:
        load_saga(f"{name}:tirp")
    assert f"{name}:trip, {name}:order" in caught.value.do
    with pytest.raises(UsageError, match="it is a step of the saga"):
        load_saga(f"{name}:pay")
    with pytest.raises(UsageError, match="has 2 sagas"):
        load_saga(name)
    with pytest.raises(UsageError, match=f"did you mean '{name}'"):
        load_saga(name + "x:trip")


@pytest.mark.parametrize(("text", "what"), [
    ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    ("x = 1\nx = 1 / 0", "ZeroDivisionError: division by zero"),
    ("x = (\n", "SyntaxError"),
    ("import sys; sys.exit(3)", "ended the program while it was imported"),
])
def test_a_module_that_cannot_be_imported_is_told_with_its_line_and_without_a_traceback(
        module: Callable[[str], str], text: str, what: str, capsys: pytest.CaptureFixture[str]):
    name = module(text)
    with pytest.raises(DefinitionError) as caught:
        load_saga(f"{name}:trip")
    assert what in str(caught.value)
    assert ".py:" in str(caught.value) or "ended" in what
    assert run(["graph", f"{name}:trip"]) == Exit.USAGE
    assert "Traceback" not in capsys.readouterr().err


def test_a_saga_that_cannot_run_is_told_before_anything_runs(module: Callable[[str], str]):
    name = module(SAGA.format(name="trip").replace("@hotel.undo\n", ""))
    with pytest.raises(DefinitionError, match="has no undo"):
        load_saga(name)


def test_graph_draws_in_every_format(module: Callable[[str], str], capsys: pytest.CaptureFixture[str], tmp_path: Path):
    name = module(SAGA.format(name="trip"))
    assert run(["graph", name]) == Exit.OK
    assert "│ hotel ↶ ├─────▶┃ pay   ┃" in capsys.readouterr().out
    assert run(["graph", name, "--format", "mermaid"]) == Exit.OK
    assert capsys.readouterr().out.startswith("flowchart LR")
    assert run(["graph", name, "--format", "dot"]) == Exit.OK
    assert "rankdir=LR" in capsys.readouterr().out
    assert run(["graph", name, "--format", "svg", "-o", "trip.svg"]) == Exit.OK
    assert ET.parse(tmp_path / "trip.svg").getroot().tag.endswith("svg")
    capsys.readouterr()
    assert run(["graph", name, "--json"]) == Exit.OK
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [(step["name"], step["needs"], step["pivot"]) for step in steps] == [("hotel", [], False), ("pay", ["hotel"], True)]


def test_a_picture_that_cannot_be_written_is_a_usage_error(module: Callable[[str], str], capsys: pytest.CaptureFixture[str]):
    name = module(SAGA.format(name="trip"))
    assert run(["graph", name, "-o", "no/such/folder.svg"]) == Exit.USAGE
    assert "no such file or directory" in capsys.readouterr().err

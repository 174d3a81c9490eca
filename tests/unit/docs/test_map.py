"""ARCHITECTURE.md is a map: every place on it exists, and every package is on it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "src" / "yaoki"
LINES = (ROOT / "ARCHITECTURE.md").read_text("utf-8").splitlines()

PLACE = re.compile(r"[\w.\-]+(?:/[\w.\-]+)*(?:/|\.py|\.md)")


def places(line: str) -> list[str]:
    """What a line names in backticks, or draws in a tree, that looks like a file or a folder."""
    words = re.findall(r"`([^`]+)`", line) + re.findall(r"(?:└─|├─)\s*(\S+)", line)
    return [word for word in words if PLACE.fullmatch(word)]


def in_rows() -> Iterator[tuple[str, str]]:
    """Each place, with the folder that its row of a table is about."""
    for line in LINES:
        found = places(line)
        row = found[0] if line.startswith("| `") and found else ""
        yield from ((place, row) for place in found)


def exists(place: str, row: str) -> bool:
    """Below the source, the project, or the folder of the row; a name alone, in the text, anywhere below the source."""
    if any((base / place).exists() for base in (SOURCE, ROOT, SOURCE / row)):
        return True
    return not row and "/" not in place.rstrip("/") and next(SOURCE.rglob(place.rstrip("/")), None) is not None


def test_every_place_on_the_map_exists():
    named = sorted(set(in_rows()))
    assert len(named) > 80, "the map is not read as it is written"
    assert [place for place, row in named if not exists(place, row)] == []


@pytest.mark.parametrize("package", sorted(str(path.parent.relative_to(SOURCE)) for path in SOURCE.rglob("*/__init__.py")))
def test_every_package_is_on_the_map(package: str):
    on_it = {row + place for place, row in in_rows()} | {place for place, _ in in_rows()}
    assert f"{package}/" in on_it, f"ARCHITECTURE.md does not say what {package}/ is for"


def test_the_floors_of_the_map_are_those_that_imports_are_held_to():
    (layers,) = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    there = {path.stem for path in SOURCE.iterdir()}
    held = [name for line in layers["layers"] for name in re.findall(r"yaoki\.(\w+)", line) if name in there]
    rows = [places(line.split("|")[2]) for line in LINES if re.match(r"\| \d \|", line)]
    floor = {re.sub(r"(/|\.py)$", "", place): number for number, row in enumerate(rows) for place in row}
    assert set(floor) == set(held)
    assert [floor[name] for name in held] == sorted(floor.values()), "from the roof down, as the linter has them"

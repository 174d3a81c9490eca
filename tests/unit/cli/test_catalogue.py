"""The table of errors: complete, and what the pages say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from yaoki.cli.frame.catalogue import ENTRIES, HOMES, by_code, pages
from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.root import run

ROOT = Path(__file__).resolve().parents[3]
WRITE = "python -m yaoki.cli.frame.catalogue docs/reference/errors"


def test_every_code_has_its_causes_and_its_remedies():
    missing = by_code().keys() - ENTRIES.keys()
    assert not missing, f"write causes and remedies into yaoki/cli/frame/catalogue.py, then: {WRITE}"
    assert not ENTRIES.keys() - by_code().keys(), "remedies for codes that no error has"
    assert all(entry.causes and entry.do for entry in ENTRIES.values())


def test_every_class_has_a_code_of_its_own_and_a_sentence():
    assert len({kind.__name__ for kind in by_code().values()}) == len(by_code())
    for code, kind in by_code().items():
        assert re.fullmatch(r"YK-\d{4}", code)
        assert kind.__doc__


def test_every_module_that_defines_an_error_is_in_the_table():
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        if re.search(r'^    code(: .*)? = "YK-\d{4}"', path.read_text(encoding="utf-8"), re.MULTILINE):
            found.add(".".join(path.relative_to(ROOT / "src").with_suffix("").parts))
    assert found == set(HOMES)


def test_the_pages_in_the_docs_are_those_of_the_table():
    folder = ROOT / "docs/reference/errors"
    wanted = dict(pages())
    assert {path.name for path in folder.iterdir()} == wanted.keys(), WRITE
    for name, text in wanted.items():
        assert (folder / name).read_text("utf-8") == text, WRITE


def test_help_prints_the_page(capsys: pytest.CaptureFixture[str]):
    for word in ("YK-3001", "yk-3001", "3001"):
        assert run(["help", word]) == Exit.OK
        assert "JournalLockedError" in capsys.readouterr().out


def test_help_of_what_is_no_code_says_what_to_type(capsys: pytest.CaptureFixture[str]):
    assert run(["help", "runs"]) == Exit.USAGE
    assert "yk runs --help" in capsys.readouterr().err
    assert run(["help", "YK-30001"]) == Exit.USAGE
    assert "did you mean 'YK-300" in capsys.readouterr().err

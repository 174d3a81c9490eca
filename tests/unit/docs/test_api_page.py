"""Every public name has its row in the reference, with how it is called and a sentence."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from yaoki.cli.frame import api

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = DOCS / "reference/api.md"
WRITE = "python -m yaoki.cli.frame.api docs/reference/api.md"


@pytest.mark.parametrize("module", api.MODULES, ids=lambda module: module.name)
def test_every_public_name_has_its_row_and_its_sentence(module: api.Module):
    section = PAGE.read_text("utf-8").partition(f"\n## {module.name}\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (?:&nbsp;)*`\.?(\w+).*?` \| (.*) \|$", section, re.MULTILINE))
    found = importlib.import_module(module.name)
    for name in api.names_of(found):
        assert rows.get(name), f"{module.name}.{name} is not in the page: {WRITE}"
        assert api.sentence(getattr(found, name)), f"{module.name}.{name} has no docstring"
    if module.page:
        assert (PAGE.parent / module.page).exists()


def test_what_the_pages_import_is_public():
    public = {(module.name, name) for module in api.MODULES for name in api.names_of(importlib.import_module(module.name))}
    modules = {module.name for module in api.MODULES} | {"yaoki.explore.mail"}
    for page in DOCS.rglob("*.md"):
        for home, names in re.findall(r"^from (yaoki[\w.]*) import ([\w, ]+)", page.read_text("utf-8"), re.MULTILINE):
            for name in names.split(", "):
                is_module = f"{home}.{name}" in modules or (home, name) == ("yaoki", "events")
                assert is_module or (home, name) in public, f"{page.name} imports {home}.{name}, which {PAGE.name} does not have"


def test_making_the_page_twice_gives_the_same_page():
    assert api.page() == api.page()

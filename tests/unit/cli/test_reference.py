"""The reference page: every command has its place there, and everything it says is made from the commands."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from yaoki.cli.frame import reference
from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.root import root, summaries

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/cli.md"
WRITE = "python -m yaoki.cli.frame.reference docs/reference/cli.md"


def test_every_exit_code_has_its_meaning():
    assert reference.MEANINGS.keys() == set(Exit)


@pytest.mark.parametrize("noun", sorted(summaries()))
def test_every_command_is_in_the_docs(noun: str):
    text = PAGE.read_text("utf-8")
    assert f"\n## yk {noun}\n" in text, WRITE
    command = root.get_command(click.Context(root), noun)
    for verb in getattr(command, "commands", {}):
        assert f"\n### yk {noun} {verb}\n" in text, WRITE


def test_making_the_page_twice_gives_the_same_page():
    assert reference.page() == reference.page()
    assert "\x1b" not in reference.page()

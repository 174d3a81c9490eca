"""What the pages tell people to type: their Python runs, their commands exist, their links lead somewhere.

Pages that other suites run with more care (the tutorials, the policies, messages, the ledger, composed sagas) are left to
them; `test_no_pages_code_is_forgotten` says which of the two has each.
"""

from __future__ import annotations

import io
import re
import shlex
import sys
import types
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import click
import pytest

from yaoki.cli.frame.root import root, summaries

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *(page for page in DOCS.rglob("*.md"))])

# Run here, from top to bottom, each page as one module.
HERE = ["how-to/change-a-saga-with-runs-in-flight.md", "how-to/limit-a-queue.md", "how-to/move-from-a-retry-library.md",
        "how-to/move-from-a-workflow-engine.md", "how-to/operate-runs.md", "how-to/share-a-breaker.md", "how-to/use-it-in-web-programs.md",
        "reference/integrations/clients.md"]

# Run by the suite named.
ELSEWHERE = {
    "README.md": "test_readme.py", "README.ja.md": "test_readme.py",
    "docs/tutorial/first-saga.md": "test_tutorial.py", "docs/tutorial/explore.md": "explore/test_docs.py",
    "docs/reference/explore.md": "explore/test_docs.py", "docs/reference/participant.md": "travel/test_docs.py",
    "docs/reference/sagas-composed.md": "saga/test_composed_docs.py", "docs/how-to/compose-sagas.md": "saga/test_composed_docs.py",
    "docs/how-to/let-an-agent-call-tools.md": "saga/test_composed_docs.py",
    "docs/reference/sagas-time.md": "saga/test_outside_docs.py", "docs/how-to/let-the-outside-answer.md": "saga/test_outside_docs.py",
    "docs/reference/ledger.md": "ledger/test_ledger_docs.py", "docs/how-to/audit-a-pipeline.md": "ledger/test_ledger_docs.py",
    "docs/how-to/keep-a-ledger.md": "ledger/test_ledger_docs.py",
    "docs/reference/messages.md": "messages/test_messages_docs.py", "docs/how-to/answer-202.md": "messages/test_messages_docs.py",
    "docs/how-to/publish-with-your-data.md": "messages/test_messages_docs.py", "docs/how-to/use-faststream.md": "live/test_faststream.py",
    "docs/reference/sagas.md": "nothing: its pieces are those of the tutorial's and the README's sagas",
    "docs/reference/service.md": "policies/test_docs.py", "docs/how-to/test-what-happens-on-failure.md": "policies/test_docs.py",
    "docs/reference/policies": "policies/test_docs.py and test_policy_pages.py",
}


def blocks(page: Path, language: str) -> list[str]:
    """The page's blocks in a language; ```python theirs``` is another library's, and not one of them."""
    return re.findall(rf"^```{language}(?: file=\S+)?\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", HERE)
def test_the_code_of_a_page_runs_from_top_to_bottom(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    found = blocks(DOCS / name, "python")
    assert found
    with redirect_stdout(io.StringIO()):
        for block in found:
            exec(compile(block, name, "exec", dont_inherit=True), module.__dict__)


def test_no_pages_code_is_forgotten():
    tried = {f"docs/{name}" for name in HERE} | ELSEWHERE.keys()
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        if blocks(page, "python"):
            assert name in tried or str(page.parent.relative_to(ROOT)) in tried, f"nothing runs the code of {name}"


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def commands(page: Path) -> Iterator[str]:
    """Each `yk ...` of a page, in blocks and in the text, without prompt, remark, pipe, redirection and what may be left out."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    fenced = re.findall(r"^```(?:console|sh)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced for line in block.splitlines()]
    lines += [line.strip() for line in text.splitlines() if line.startswith("    ")]
    lines += re.findall(r"`((?:\./)?yk [^`\n]+)`", text)
    for line in lines:
        found = re.match(r"\s*(?:\$ )?(?:\./)?(?:.* \| )?yk ([a-z].*)", line)
        if found and not found[1].startswith(("test", "help")):
            yield re.sub(r"\[[^\]]*\]|\|\w+", "", re.split(r"   +|\s+(?:#|\|\||\||>|·)(?:\s|$)", found[1])[0])


def parse(words: list[str]) -> None:
    """Are these words a command? Raises click.UsageError if not. Nothing is done."""
    context, command = click.Context(root, help_option_names=["-h", "--help"]), root  # as the frame has it: click remembers it
    while isinstance(command, click.Group) and words and not words[0].startswith("-") and set(words[0]) != {"."}:
        _, below, words = command.resolve_command(context, words)
        assert below is not None
        context, command = click.Context(below, parent=context, info_name=below.name), below
    command.make_parser(context).parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_shows_exists(page: Path):
    for line in commands(page):
        if line.split()[0].isupper():
            continue  # NOUN VERB
        try:
            parse(shlex.split(line.replace("SOURCE", "sqlite:///SOURCE")))
        except (click.UsageError, ValueError) as error:
            raise AssertionError(f"{page.relative_to(ROOT)} shows `yk {line}`: {error}") from error


def test_the_commands_of_pages_are_looked_at():
    assert sum(1 for page in PAGES if page.name != "cli.md" for _ in commands(page)) > 100
    with pytest.raises(click.UsageError):
        parse(["runs", "list", "--nope"])


# ── links ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    found = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_page_and_a_heading_that_exist(page: Path):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for path, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.relative_to(ROOT)} links to {path}"
        if anchor:
            assert anchor in anchors(target), f"{page.relative_to(ROOT)} links to {path}#{anchor}"


def test_the_index_leads_to_every_page():
    text = (DOCS / "README.md").read_text("utf-8")
    for folder in ("tutorial", "how-to", "explanation"):
        for page in (DOCS / folder).glob("*.md"):
            assert f"({folder}/{page.name}" in text, f"docs/README.md does not lead to {folder}/{page.name}"
    for page in (DOCS / "reference").glob("*.md"):
        assert f"(reference/{page.name}" in text, f"docs/README.md does not lead to reference/{page.name}"


def test_every_how_to_says_when_and_what_to_do_when_it_goes_wrong():
    for page in (DOCS / "how-to").glob("*.md"):
        text = page.read_text("utf-8")
        assert "**When.**" in text.partition("\n## ")[0], f"{page.name} does not open with when to use it"
        assert "\n## When it goes wrong\n" in text, f"{page.name} does not say what to do when it goes wrong"


def test_every_noun_is_told_of_in_some_page():
    told = "\n".join(page.read_text("utf-8") for page in PAGES if page.name != "cli.md")
    assert [noun for noun in summaries() if f"yk {noun}" not in told and noun not in {"completion", "version"}] == []

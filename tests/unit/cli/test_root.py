"""The frame of the command line: words to commands, errors to text or JSON, endings to exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from yaoki.cli.frame import problems, root
from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.root import run
from yaoki.errors import DefinitionError, JournalLockedError, RefusedError, RunNotFoundError, UsageError, YaokiError


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(str(tmp_path))


def test_help_lists_every_noun_with_its_one_line(capsys: pytest.CaptureFixture[str]):
    assert run(["--help"]) == Exit.OK
    text = capsys.readouterr().out
    for noun, summary in root.summaries().items():
        assert f"  {noun} " in text
        assert summary.split()[0] in text
        assert summary.endswith("."), f"{noun}: the first line of its file's docstring is a sentence"


@pytest.mark.parametrize("noun", sorted(root.summaries()))
def test_every_noun_has_a_command_and_every_verb_helps_and_takes_json(noun: str, capsys: pytest.CaptureFixture[str]):
    command = root.root.get_command(click.Context(root.root), noun)
    assert command is not None
    assert command.name == noun
    for verb in ((), *((name,) for name in getattr(command, "commands", {}))):
        assert run([noun, *verb, "-h"]) == Exit.OK
        text = capsys.readouterr().out
        assert "Usage: yk" in text
        assert "--json" in text
        assert "  " in text.partition("\n\n")[2], "says what it does"


def test_no_words_shows_the_help_and_is_a_mistake(capsys: pytest.CaptureFixture[str]):
    assert run([]) == Exit.USAGE
    assert "Start here" in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "meant"), [("rums", "runs"), ("doctr", "doctor"), ("grph", "graph")])
def test_a_misspelled_noun_is_answered_with_the_right_one(typed: str, meant: str, capsys: pytest.CaptureFixture[str]):
    assert run([typed]) == Exit.USAGE
    assert f"did you mean {meant!r}?" in capsys.readouterr().err


def test_a_wrong_option_is_a_coded_error_with_the_next_thing_to_do(capsys: pytest.CaptureFixture[str]):
    assert run(["version", "--jsn"]) == Exit.USAGE
    error = capsys.readouterr().err
    assert error.startswith("YK-2000  ")
    assert "do this: yk version --help" in error
    assert "see:     yk help YK-2000" in error


def test_with_json_an_error_is_a_json_object_on_stderr_and_stdout_is_empty(capsys: pytest.CaptureFixture[str]):
    assert run(["--json", "version", "--nope"]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["error"]["code"] == "YK-2000"


def test_json_works_before_and_after_the_noun(capsys: pytest.CaptureFixture[str]):
    for words in (["--json", "version"], ["version", "--json"]):
        assert run(words) == Exit.OK
        assert json.loads(capsys.readouterr().out)["yaoki"]


@pytest.mark.parametrize(("error", "code"), [
    (UsageError("x"), Exit.USAGE), (DefinitionError("x"), Exit.USAGE), (JournalLockedError("x"), Exit.USAGE),
    (RunNotFoundError("x"), Exit.USAGE), (RefusedError("x"), Exit.FINDING), (YaokiError("x"), Exit.FINDING),
    (UsageError("x", exit_code=Exit.REFUSED), Exit.REFUSED), (KeyboardInterrupt(), Exit.INTERRUPTED),
    (click.Abort(), Exit.INTERRUPTED), (FileNotFoundError(2, "No such file or directory", "x.jsonl"), Exit.USAGE),
    (OSError(28, "No space left on device"), Exit.USAGE), (OSError(98, "Address already in use"), Exit.USAGE),
    (ZeroDivisionError("x"), Exit.BUG),
])
def test_how_each_kind_of_error_ends(error: BaseException, code: Exit, capsys: pytest.CaptureFixture[str]):
    assert problems.report(error, as_json=False) == code
    text = capsys.readouterr().err
    assert ("This is a bug in Yaoki" in text) == (code is Exit.BUG)
    assert problems.report(error, as_json=True) == code
    assert json.loads(capsys.readouterr().err)


def test_a_message_says_what_why_and_what_to_do(capsys: pytest.CaptureFixture[str]):
    error = JournalLockedError("trips.db is in use by process 7", do="stop it\nor wait").with_note("seen before")
    problems.report(error, as_json=False)
    assert capsys.readouterr().err == (
        "YK-3001  trips.db is in use by process 7\n"
        "  why:     Two processes driving the same runs would repeat each other's steps.\n"
        "  do this: stop it\n"
        "           or wait\n"
        "  note:    seen before\n"
        "  see:     yk help YK-3001\n")


def test_completion_scripts_need_no_shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    for shell in ("bash", "zsh", "fish"):
        assert run(["completion", shell]) == Exit.OK
        assert "_YK_COMPLETE" in capsys.readouterr().out


def test_the_tab_key_knows_nouns():
    done = subprocess.run([sys.executable, "-m", "yaoki"], capture_output=True, text=True, check=False, timeout=150,
                          env={"_YK_COMPLETE": "bash_complete", "COMP_WORDS": "yk ru", "COMP_CWORD": "1", "PATH": ""})
    assert {"plain,run", "plain,runs"} <= set(done.stdout.split())


def test_a_closed_pipe_is_no_error():
    script = ("import sys; from yaoki.cli.frame.root import run\n"
              "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1); sys.exit(run(['--help']))")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=150)
    assert (done.returncode, done.stderr) == (Exit.PIPE_CLOSED, "")


def test_a_terminal_without_boxes_and_arrows_gets_question_marks():
    done = subprocess.run([sys.executable, "-m", "yaoki", "graph", "yaoki.examples.travel.book"], capture_output=True, check=False, timeout=150,
                          env={"PYTHONIOENCODING": "latin-1", "PATH": ""})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"? hotel ?" in done.stdout


@pytest.mark.parametrize(("variables", "colored"), [
    ({"FORCE_COLOR": "1"}, True), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False), ({"NO_COLOR": ""}, False), ({}, False),
])
def test_colour_only_where_it_is_wanted(variables: dict[str, str], colored: bool, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]):
    monkeypatch.delenv("NO_COLOR")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run(["config", "show"])
    assert ("\x1b[" in capsys.readouterr().out) == colored


@pytest.mark.parametrize("words", [("runs", "resolve"), ("run",), ("explore",), ("plan",), ("runs", "retry")])
def test_lines_of_a_help_text_that_are_to_be_kept_are_kept(words: tuple[str, ...], capfd: pytest.CaptureFixture[str]):
    assert run([*words, "--help"]) == 0
    assert "\\b" not in capfd.readouterr().out

"""`yk run` and `yk runs` on a real journal, in this process: what they print, and how they end."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from yaoki import Saga, events
from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.output import Output
from yaoki.cli.frame.root import run
from yaoki.cli.run.batch import Batch, Outcome
from yaoki.cli.run.inputs import Input
from yaoki.cli.runs import asking
from yaoki.saga.journal.sqlite import SqliteJournal
from yaoki.saga.records import Header, RunState

CARDS = {"ok-1": "1", "ok-2": "1", "no-1": "declined", "bug-1": "bug", "bug-2": "bug", "sticky-1": "sticky"}


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def yk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Said]]:
    """`yk WORDS` in a folder of its own, with the saga of `orders.py` in it. Nobody waits for an engine that is not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(asking, "WAIT_S", 0.0)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    shutil.copy(Path(__file__).with_name("orders.py"), tmp_path / "orders.py")
    (tmp_path / "orders.jsonl").write_text("".join(
        json.dumps({"id": name, "card": {"number": card}}) + "\n" for name, card in CARDS.items()))

    def say(*words: str) -> Said:
        capsys.readouterr()
        code = run(words)
        return Said(code, *capsys.readouterr())

    yield say
    sys.modules.pop("orders", None)


@pytest.fixture
def ran(yk: Callable[..., Said]) -> Callable[..., Said]:
    """`yk`, after the orders were run."""
    assert yk("run", "orders:order", "orders.jsonl").code == Exit.FINDING
    return yk


def a_saga() -> Saga[Any]:
    saga = Saga("order", input=dict)
    saga.step(name="pay", undo=None)(lambda order: None)
    return saga


# ── run ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_run_counts_what_came_of_each_line(yk: Callable[..., Said]):
    said = yk("run", "orders:order", "orders.jsonl", "--json")
    assert said.code == Exit.FINDING
    (told,) = said.json
    assert {key: told[key] for key in ("runs", "already", "completed", "undone", "blocked", "unfinished", "bad_lines")} == \
        {"runs": 6, "already": 0, "completed": 2, "undone": 1, "blocked": 3, "unfinished": 0, "bad_lines": 0}
    assert said.err == "", "no progress bar where nobody looks"


def test_running_it_again_starts_nothing_twice(ran: Callable[..., Said]):
    said = ran("run", "orders:order", "orders.jsonl", "--json")
    assert (said.json[0]["already"], said.json[0]["runs"]) == (3, 6)
    assert len(ran("runs", "list", "--json").json) == 6


def test_a_bad_line_starts_nothing_at_all(yk: Callable[..., Said]):
    with Path("orders.jsonl").open("a") as file:
        file.write('{"id": "x", "card": {}}\n')
    said = yk("run", "orders:order", "orders.jsonl")
    assert said.code == Exit.USAGE
    assert "YK-2003  orders.jsonl:7: object missing required field `number` - at `$.card`" in said.err
    assert not Path("yaoki.db").exists()


def test_keep_going_starts_the_good_lines_and_names_the_bad_ones(yk: Callable[..., Said]):
    Path("orders.jsonl").write_text('{"id":"a","card":{"number":"1"}}\n{"id"\n')
    said = yk("run", "orders:order", "orders.jsonl", "--keep-going")
    assert said.code == Exit.FINDING
    assert "1 run of order" in said.out
    assert "orders.jsonl:2: broken JSON" in said.out


def test_a_changed_line_is_refused_by_its_number_and_leaves_its_run_alone(ran: Callable[..., Said]):
    Path("orders.jsonl").write_text('{"id":"ok-1","card":{"number":"2"}}\n')
    said = ran("run", "orders:order", "orders.jsonl")
    assert said.code == Exit.USAGE
    assert "YK-4003  orders.jsonl:1: run 'ok-1' exists already, with another input" in said.err


def test_check_only_checks(yk: Callable[..., Said]):
    said = yk("run", "orders:order", "orders.jsonl", "--check", "--json")
    assert (said.code, said.json) == (Exit.OK, [{"good_lines": 6, "bad_lines": 0, "repeated_lines": 0}])
    assert yk("run", "orders:order", "--check").code == Exit.USAGE
    assert not Path("yaoki.db").exists()


class Engine:
    """Starts every run, and ends none: whoever waited for one would wait for ever."""

    def __init__(self) -> None:
        self.engine = self
        self.started: list[str] = []

    async def start(self, saga: Saga[Any], value: Any, *, id: str) -> Header:  # noqa: A002
        self.started.append(id)
        return Header(len(self.started), id, saga.name, "", RunState.RUNNING, b"")


async def test_runs_that_rest_hold_up_nobody():
    saga = a_saga()
    saga.sleep(86_400, name="cool", after="pay")
    batch, engine = Batch(saga, "sqlite:///x.db", None, concurrency=1, grace_s=0.0, brake=True), Engine()
    await batch._worker(engine, iter(Input(n, f"o-{n}", {}) for n in range(3)))
    assert engine.started == ["o-0", "o-1", "o-2"]
    batch._heard(events.RunFinished(run="o-1", saga="order", outcome="completed", duration_s=1.0))
    assert (batch.progress.started, batch.progress.done) == (3, 1)


def test_a_run_that_is_decided_while_the_batch_runs_is_counted_once():
    counted = Batch(a_saga(), "sqlite:///x.db", None, concurrency=1, grace_s=0.0, brake=True)
    counted._heard(events.RunBlocked(run="a", saga="order", step="pay", reason=""))
    counted._heard(events.RunFinished(run="a", saga="order", outcome="completed", duration_s=1.0))
    assert (counted.progress.ended, counted.progress.started) == ({RunState.BLOCKED: 0, RunState.COMPLETED: 1}, 1)


def test_the_brake_stops_the_batch_and_says_so():
    counted = Batch(a_saga(), "sqlite:///x.db", None, concurrency=1, grace_s=0.0, brake=True)
    counted._heard(events.SagaPaused(saga="order", aborted=190, finished=200))
    outcome = Outcome("order", "sqlite:///x.db", counted.progress, 1.0)
    outcome.stop = counted.stop
    assert outcome.exit is Exit.REFUSED
    assert "the brake of order is on" in " ".join(outcome.as_text())


def test_run_without_a_file_finishes_what_people_decided(ran: Callable[..., Said]):
    assert ran("runs", "retry", "--all", "--yes").code == Exit.OK
    Path("fixed").touch()
    said = ran("run", "orders:order", "--json")
    assert said.code == Exit.OK
    assert said.json[0]["completed"] == 2
    assert said.json[0]["undone"] == 1


@pytest.mark.parametrize("words", [
    ("run", "nowhere:order", "orders.jsonl"), ("run", "orders:nothing", "orders.jsonl"), ("run", "orders:order", "no.jsonl"),
    ("run", "orders:order", "."), ("run", "orders:order", "orders.jsonl", "--concurrency", "0"),
    ("run", "orders:order", "orders.jsonl", "--db", "mysql://x"), ("run", "orders:order", "orders.jsonl", "--db", "sqlite:///no/such/x.db"),
    ("run", "orders:order", "orders.jsonl", "--grace", "soon"), ("run", "orders:order", "orders.jsonl", "--id-field", "card"),
])
def test_what_is_wrong_with_the_words_of_run_is_said_and_nothing_is_made(yk: Callable[..., Said], words: tuple[str, ...]):
    said = yk(*words)
    assert said.code == Exit.USAGE
    assert said.err.startswith("YK-")
    assert "do this:" in said.err
    assert "Traceback" not in said.err
    assert not list(Path().glob("*.db"))


def test_a_lock_of_another_program_on_the_file_is_said(ran: Callable[..., Said], monkeypatch: pytest.MonkeyPatch):
    connect = sqlite3.connect
    other = connect("yaoki.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "timeout": 0.05}))
    said = ran("run", "orders:order", "orders.jsonl")
    other.close()
    assert said.code == Exit.USAGE
    assert "YK-3000  yaoki.db is busy: another program holds a lock on it" in said.err


def test_on_a_full_disk_it_says_so_and_goes_on_when_there_is_room(yk: Callable[..., Said], monkeypatch: pytest.MonkeyPatch):
    opened = SqliteJournal._opened

    def on_a_small_disk(journal: SqliteJournal, writing: bool) -> sqlite3.Connection:
        connection = opened(journal, writing)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        return connection

    Path("orders.jsonl").write_text("".join(json.dumps({"id": f"o-{n}", "card": {"number": "1"}}) + "\n" for n in range(300)))
    with monkeypatch.context() as small:
        small.setattr(SqliteJournal, "_opened", on_a_small_disk)
        said = yk("run", "orders:order", "orders.jsonl")
    assert said.code == Exit.USAGE
    assert "YK-3000  no space left for yaoki.db" in said.err
    assert "nothing was lost" in said.err
    assert yk("run", "orders:order", "orders.jsonl", "--json").json[0]["completed"] == 300


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_list_filters_and_counts(ran: Callable[..., Said]):
    said = ran("runs", "list", "--state", "blocked")
    assert [line.split()[0] for line in said.out.splitlines()[1:]] == ["sticky-1", "bug-2", "bug-1"], "newest first"
    assert "blocked 3 · completed 2 · undone 1" in said.err
    assert {each["state"] for each in ran("runs", "list", "--state", "ended", "--json").json} == {"completed", "undone"}
    assert len(ran("runs", "list", "--limit", "2", "--json").json) == 2
    assert ran("runs", "list", "--saga", "other", "--json").json == []
    assert ran("runs", "list", "--since", "1h", "--json").json
    assert ran("runs", "list", "--until", "1h", "--json").json == []
    assert "did you mean 'blocked'?" in ran("runs", "list", "--state", "blokced").err


def test_show_puts_the_error_first_then_the_ways_out_the_graph_and_the_history(ran: Callable[..., Said]):
    said = ran("runs", "show", "bug-1")
    assert said.code == Exit.FINDING
    parts = ["bug-1  blocked  order", "! pay: KeyError: 'currency'", "yk runs resolve bug-1 pay retry", "┃ ! pay", "started",
             "reserve  done", "pay      blocked"]
    at = [said.out.index(part) for part in parts]
    assert at == sorted(at)
    assert "/yaoki/saga/" not in said.out, "the frames shown are the user's own"


def test_show_is_cut_to_the_terminal_and_says_so(ran: Callable[..., Said], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Output, "terminal_width", 60)
    said = ran("runs", "show", "ok-1")
    assert "(shortened to the width of the terminal; --full shows all)" in said.out
    assert all(len(line) <= 60 for line in said.out.splitlines() if line.startswith("+"))
    assert '"number":"1"},"qty":1}' in ran("runs", "show", "ok-1", "--full").out


def test_show_for_programs(ran: Callable[..., Said]):
    (told,) = ran("runs", "show", "no-1", "--json").json
    assert (told["state"], told["input"]["card"], told["result"]) == ("undone", {"number": "declined"}, None)
    assert [(step["name"], step["state"]) for step in told["steps"]] == [("reserve", "clear"), ("pay", "clear"), ("ship", "clear")]
    assert [record["kind"] for record in told["history"]] == ["done", "failed", "abort", "undone"]


def test_an_id_may_be_shortened_while_it_is_unique(ran: Callable[..., Said]):
    assert ran("runs", "show", "sti").out.startswith("sticky-1")
    said = ran("runs", "show", "bug")
    assert said.code == Exit.USAGE
    assert "several runs begin with 'bug': bug-2, bug-1" in said.err
    assert "YK-4004" in ran("runs", "show", "nobody").err


def test_show_draws_in_other_formats(ran: Callable[..., Said]):
    assert ran("runs", "show", "ok-1", "--format", "svg", "-o", "run.svg").code == Exit.OK
    assert "✓ pay" in Path("run.svg").read_text()
    assert ran("runs", "show", "ok-1", "--format", "mermaid").out.startswith("flowchart")


# ── deciding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_decision_is_carried_out_by_the_next_start_and_kept_in_the_history(ran: Callable[..., Said]):
    said = ran("runs", "resolve", "bug-1", "pay", "done", "--result", "700", "--who", "ann", "--why", "by phone")
    assert said.code == Exit.OK
    assert "the next one that starts does" in said.err.replace("\n", " ")
    assert "asked now: pay is done by ann; not carried out yet" in ran("runs", "show", "bug-1").out
    ran("run", "orders:order")
    shown = ran("runs", "show", "bug-1").out
    assert "bug-1  completed" in shown
    assert "decided: done  by ann, by phone" in shown
    assert '"shipped for 700"' in shown


def test_an_undo_that_is_blocked_can_be_settled_by_hand(ran: Callable[..., Said]):
    assert "it was taken back by hand" in ran("runs", "show", "sticky-1").out
    ran("runs", "resolve", "sticky-1", "reserve", "undone")
    ran("run", "orders:order")
    assert ran("runs", "show", "sticky-1").out.startswith("sticky-1  undone")


@pytest.mark.parametrize(("words", "what", "code"), [
    (("resolve", "bug-1", "ship", "retry"), "step 'ship' of run bug-1 is not blocked", Exit.USAGE),
    (("resolve", "bug-1", "shop", "retry"), "has no step 'shop'; its steps are reserve, pay, ship", Exit.USAGE),
    (("resolve", "ok-1", "pay", "retry"), "run ok-1 has ended already: it is completed", Exit.USAGE),
    (("resolve", "bug-1", "pay", "done", "--result", "{"), "--result is not JSON", Exit.USAGE),
    (("cancel", "ok-1"), "has ended already", Exit.USAGE),
    (("cancel", "sticky-1"), "is undoing itself already", Exit.USAGE),
    (("retry", "no-1"), "has ended already: it is undone", Exit.USAGE),
    (("retry",), "name a run, or say --all", Exit.USAGE),
    (("retry", "--all"), "nobody is there to answer", Exit.REFUSED),
    (("purge", "--older-than", "0"), "nobody is there to answer", Exit.REFUSED),
])
def test_what_cannot_apply_is_refused_and_nothing_is_asked(ran: Callable[..., Said], words: tuple[str, ...], what: str, code: Exit):
    said = ran("runs", *words)
    assert (said.code, what in said.err) == (code, True), said.err
    assert ran("runs", "show", "bug-1", "--json").json[0]["asked"] == []


def test_retry_all_takes_only_the_errors_that_are_meant(ran: Callable[..., Said]):
    assert [each["run"] for each in ran("runs", "retry", "--all", "--limit", "1", "--yes", "--json").json] == ["sticky-1"]
    said = ran("runs", "retry", "--all", "--error", "KeyError", "--yes", "--json")
    assert {each["run"] for each in said.json} == {"bug-1", "bug-2"}
    assert ran("runs", "retry", "--all", "--error", "nothing like it", "--yes").out == "no run fits\n"


def test_cancel_is_refused_after_the_pivot(ran: Callable[..., Said], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(RunState.COMPLETED, "is_end", False)  # as if it were still shipping
    said = ran("runs", "cancel", "ok-1")
    assert said.code == Exit.REFUSED
    assert "has passed pay, its point of no return" in said.err


# ── keeping ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_export_writes_whole_histories_and_filters(ran: Callable[..., Said]):
    told = ran("runs", "export").json
    assert len(told) == 6
    assert all(each["history"] and each["input"] for each in told)
    assert ran("runs", "export", "--state", "undone", "-o", "e.jsonl", "--json").json == [{"runs": 1, "file": "e.jsonl"}]
    assert json.loads(Path("e.jsonl").read_text())["id"] == "no-1"


def test_purge_removes_what_has_ended_and_nothing_else(ran: Callable[..., Said]):
    assert ran("runs", "purge", "--older-than", "1h", "--yes").out.endswith("no run is that old\n")
    assert ran("runs", "purge", "--older-than", "0", "--dry-run", "--json").json[0]["removed"] == 0
    assert ran("runs", "purge", "--older-than", "0", "--yes", "--json").json[0]["removed"] == 3
    assert {each["state"] for each in ran("runs", "list", "--json").json} == {"blocked"}


def test_the_tab_key_knows_ids(ran: Callable[..., Said]):
    import click

    from yaoki.cli.runs.completing import complete_run

    context = click.Context(click.Command("show"))
    assert complete_run(context, click.Argument(["run"]), "bug") == ["bug-2", "bug-1"]
    Path("yaoki.db").write_bytes(b"no database" * 100)
    assert complete_run(context, click.Argument(["run"]), "bug") == []

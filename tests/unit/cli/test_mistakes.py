"""What people do wrong at a keyboard: each is told what was wrong and what to do, in our words, and never by a traceback."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.root import run

ORDERS = Path(__file__).parent / "orders.py"
GOOD = '{"id":"a","card":{"number":"1"}}'

FILES = {
    "nosaga.py": "x = 1\n",
    "raises.py": 'raise RuntimeError("no DATABASE_URL")\n',
    "missing.py": "import nonexisting_lib\n",
    "leaves.py": "import sys; sys.exit(3)\n",
    "scenes.py": 'from yaoki.explore import scenario\n\n@scenario\nasync def boom():\n    raise KeyError("x")\n\ndef plain(argument): ...\n',
    "ok.jsonl": '{"id":"o-1","card":{"number":"1"}}\n{"id":"o-2","card":{"number":"bug"}}\n{"id":"o-3","card":{"number":"declined"}}\n',
    "bad.jsonl": '{"id":"o-1","card":{"number":"1"}}\n{"id":\n[1]\n',
    "notadb.db": "hello\n",
    "full/x": "",
}

# What is typed, and what the answer has to say. All of these could not begin (exit code 2).
MISTAKES = [
    # the module, the saga, the file
    (["run", "nosuch:order", "ok.jsonl"], "there is no module 'nosuch' here"),
    (["run", "mistaken:ordr", "ok.jsonl"], "did you mean 'order'?"),
    (["run", "mistaken:reserve", "ok.jsonl"], "it is a step of the saga 'order'"),
    (["run", "mistaken:Order", "ok.jsonl"], "not a saga but a class"),
    (["run", "mistaken", "ok.jsonl"], "name one of its sagas: mistaken:order, mistaken:other"),
    (["run", "./mistaken", "ok.jsonl"], "neither a module nor a file"),
    (["run", "nosaga", "ok.jsonl"], "has no saga"),
    (["run", "raises", "ok.jsonl"], "RuntimeError: no DATABASE_URL"),
    (["run", "missing", "ok.jsonl"], "No module named 'nonexisting_lib'"),
    (["run", "leaves", "ok.jsonl"], "ended the program while it was imported"),
    (["run", "mistaken:order", "nosuch.jsonl"], "nosuch.jsonl: no such file"),
    (["run", "mistaken:order", "full"], "is a directory"),
    (["run", "mistaken:order", "bad.jsonl"], "bad.jsonl:2: broken JSON"),
    (["run", "mistaken:order", "ok.jsonl", "--id-field", "number"], "field `$.number` is missing"),
    (["run", "mistaken:order", "ok.jsonl", "--queue", "x"], "go with --detach"),
    (["run", "mistaken:order", "ok.jsonl", "--grace", "5"], "write a number with a unit"),
    (["run", "mistaken:order", "ok.jsonl", "--concurrency", "many"], "'many' is not a whole number"),
    (["worker", "mistaken", "--db", "memory:"], "nobody can start runs in memory:"),
    # the address of the journal
    (["run", "mistaken:order", "ok.jsonl", "--db", "x.db"], "did you mean sqlite:///x.db?"),
    (["run", "mistaken:order", "ok.jsonl", "--db", "sqlit:///x.db"], "did you mean sqlite:///x.db?"),
    (["run", "mistaken:order", "ok.jsonl", "--db", "mysql://me:secret@x/y"], "'mysql://me:***@x/y' is not the address of a journal"),
    (["run", "mistaken:order", "ok.jsonl", "--db", "sqlite:///x.db?foo=1"], "'foo=1' after the file"),
    (["run", "mistaken:order", "ok.jsonl", "--db", "sqlite:///nosuch/x.db"], "there is no folder nosuch"),
    (["run", "mistaken:order", "ok.jsonl", "--db", "sqlite:///full"], "full is a folder"),
    (["run", "mistaken:order", "ok.jsonl", "--db", "sqlite:///notadb.db"], "is not a journal"),
    (["run", "mistaken:order", "ok.jsonl", "--db", "sqlite:////proc/x.db"], "cannot create /proc/x.db.lock"),
    (["runs", "list", "--db", "postgresql://127.0.0.1:port/x"], "the port in postgresql://127.0.0.1:port/x"),
    (["runs", "list", "--db", "sqlite:///nosuch.db"], "there is no journal at nosuch.db"),
    (["workers"], "has one owner, and no list of workers"),
    (["db", "check", "--db", "x"], "is not on PostgreSQL"),
    (["msgs", "list", "--db", "postgresql://127.0.0.1:port/x"], "cannot be read as an address"),
    (["msgs", "list", "--db", "postgresql://127.0.0.1:1/x"], "PostgreSQL at postgresql://127.0.0.1:1/x"),
    (["ledger", "keys", "--db", "postgresql://127.0.0.1:port/x"], "cannot be read as an address"),
    (["ledger", "keys", "--db", "postgresql://127.0.0.1:1/x"], "does not answer"),
    (["deps", "list"], "no store of shared breakers was named"),
    (["deps", "list", "--store", "mysql://x"], "'mysql'"),
    # which run, and what to do with it
    (["runs", "show", "nosuch"], "there is no run 'nosuch' in sqlite:///yaoki.db"),
    (["runs", "show", "o"], "several runs begin with 'o'"),
    (["runs", "list", "--state", "runing"], "did you mean 'running'?"),
    (["runs", "list", "--since", "yesterday"], "write 15m, 2h, 7d"),
    (["runs", "list", "--where", "customer"], "write --where customer=42"),
    (["runs", "resolve", "o-2", "payy", "retry"], "its steps are reserve, pay, ship"),
    (["runs", "resolve", "o-2", "pay", "done", "--result", "no json"], "--result is not JSON"),
    (["runs", "resolve", "o-2", "pay", "retry", "--result", "1"], "--result goes with done"),
    (["runs", "retry", "o-1"], "has ended already"),
    (["runs", "retry", "o-2", "--all"], "name a run, or say --all"),
    (["runs", "cancel"], "name a run, or say which ones by filters"),
    (["runs", "fork", "o-1", "--from", "nosuch"], "has no step 'nosuch'"),
    (["runs", "purge", "--older-than", "1"], "write a number with a unit"),
    (["runs", "signal", "o-2", "approval", "{}"], "has no step 'approval' that waits"),
    (["runs", "complete", "yk1.abc", "{}"], "this token is not one"),
    (["runs", "resume", "nosuch"], "there is no run 'nosuch'"),
    (["runs", "export", "-o", "nosuch/x.jsonl"], "nosuch/x.jsonl: no such file"),
    (["pause", "sagaa", "x"], "is not one of 'saga', 'queue', 'run'"),
    (["pause"], "one of saga, queue, run"),
    (["queues", "set", "mail"], "give limits, or say --no-limits"),
    (["queues", "set", "mail", "--rate", "fast"], "not 'fast'"),
    (["schedules", "show", "nosuch"], "there is no schedule 'nosuch'"),
    (["plan", "nosuch"], "there is no module 'nosuch' here"),
    # messages, the ledger, audits
    (["msgs", "show", "nosuch"], "no message's id begins with 'nosuch'"),
    (["msgs", "redrive", "nosuch", "--yes"], "no message that gave up begins with 'nosuch'"),
    (["msgs", "purge", "nosuch", "--yes"], "nothing was done"),
    (["ledger", "history", "nosuch"], "no version of 'nosuch' is kept"),
    (["ledger", "erase", "nosuch", "--yes"], "nothing was erased"),
    (["ledger", "deliver", "ftp://x"], "no sink is known at 'ftp://x'"),
    (["audit", "nosuch://x", "--sink", "f/{key}-{version}.log"], "nothing can be audited at 'nosuch://x'"),
    (["audit", "sqlite:///yaoki.db#nosuch", "--sink", "f/{key}-{version}.log"], "there is no table nosuch"),
    (["audit", "sqlite:///yaoki.db#run", "--sink", "f/x.log"], "has no template"),
    (["audit", "postgresql://127.0.0.1:1/x#t", "--sink", "f/{key}-{version}.log"], "does not answer"),
    # the explorer, graphs
    (["explore", "mistaken:order"], "needs an input"),
    (["explore", "mistaken:order", "--input", "no json"], "--input is not JSON"),
    (["explore", "mistaken:order", "--input", '{"id":"a"}'], "it takes Order(id: str, card: Card, qty: int)"),
    (["explore", "mistaken:order", "--input", GOOD, "--kind", "nosuch"], "or a family: call, clock, crash"),
    (["explore", "mistaken:order", "--input", GOOD, "--html", "nosuch/x.html"], "nosuch/x.html: no such file"),
    (["explore", "mistaken:order", "--input", GOOD, "--replay", "xx"], "is not a replay token"),
    (["explore", "scenes:plain"], "neither a scenario, nor a saga"),
    (["explore", "scenes:bom"], "did you mean 'boom'?"),
    (["graph", "mistaken:order", "--format", "png"], "'terminal', 'mermaid', 'dot', 'svg'"),
    (["graph", "mistaken:order", "-o", "nosuch/x.svg"], "nosuch/x.svg: no such file"),
    # the demo
    (["demo", "--dir", "full"], "is not empty"),
    (["demo", "--broker", "nats"], "goes with --choreographed"),
    (["demo", "--choreographed", "--broker", "x", "--dir", "demo"], "'x' is not a broker"),
    (["demo", "histroy"], "Did you mean 'history'?"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a journal in which a run is done, one is blocked and one was undone."""
    made = tmp_path_factory.mktemp("mistakes")
    shutil.copy(ORDERS, made / "mistaken.py")
    for name, text in FILES.items():
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        assert run(["run", "mistaken:order", "ok.jsonl", "--json"]) == Exit.FINDING
    return made


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_mistake_is_told_in_our_words(words: list[str], said: str, capfd: pytest.CaptureFixture[str]):
    capfd.readouterr()
    ended = run(words)
    told = capfd.readouterr().err
    assert "Traceback" not in told
    assert (ended, said in told) == (Exit.USAGE, True), told
    first = next(line for line in told.splitlines() if line.startswith("YK-"))
    assert re.match(r"YK-\d{4}  \S", first)
    assert "\n  do this: " in told


def test_one_that_is_found_out_on_the_way_is_told_too(capfd: pytest.CaptureFixture[str]):
    assert run(["explore", "scenes:boom"]) == Exit.INCONCLUSIVE
    told = capfd.readouterr().out
    assert "NOTHING CAN FAIL HERE" in told
    assert "without any fault it raises KeyError: 'x'" in told


@pytest.mark.parametrize(("module", "words", "extra"), [
    ("asyncpg", ["runs", "list", "--db", "postgresql://127.0.0.1:1/x"], "postgres"),
    ("asyncpg", ["msgs", "list", "--db", "postgresql://127.0.0.1:1/x"], "postgres"),
    ("psycopg", ["deps", "list", "--store", "postgresql://127.0.0.1:1/x"], "postgres"),
    ("redis", ["deps", "list", "--store", "redis://127.0.0.1:1/0"], "redis"),
    ("boto3", ["audit", "dynamodb://history", "--sink", "f/{key}-{version}.log"], "aws"),
    ("ministack", ["demo", "history"], "history"),
])
def test_a_missing_driver_names_the_extra_that_brings_it(module: str, words: list[str], extra: str, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]):
    for name in [each for each in sys.modules if each.startswith(("yaoki.saga.journal.postgres", "yaoki.messages.store.postgres", "yaoki.policies.shared.stores"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert run(words) == Exit.USAGE
    assert f"pip install 'yaoki[{extra}]'" in capsys.readouterr().err


def test_what_finds_nothing_says_so_and_draws_no_empty_table(capsys: pytest.CaptureFixture[str]):
    for words, said in ((["runs", "list", "--saga", "nosuch"], "no run of a saga 'nosuch'"), (["runs", "list", "--state", "running"], "none fits"),
                        (["msgs", "list"], "nobody has read messages here yet"), (["ledger", "keys"], "no keys yet"),
                        (["ledger", "epochs"], "nothing is sealed yet"), (["locks", "list"], "no key is held"),
                        (["deps", "show", "flights", "--store", "sqlite:///b.db"], "no process shares a breaker of flights")):
        assert run(words) == Exit.OK
        out, err = capsys.readouterr()
        assert said in out + err
        assert len(out.splitlines()) <= 1, out

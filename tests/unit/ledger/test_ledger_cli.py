"""`yk audit` and `yk ledger`, as people and scripts use them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from yaoki.cli.frame.root import run
from yaoki.ledger import Keeper, Ledger, Rules
from yaoki.ledger.sinks.folder import FolderSink
from yaoki.ledger.watch import Watch

SINK = "archive/{key}-{version}.log"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger with five versions delivered to a folder."""
    monkeypatch.chdir(tmp_path)

    async def fill() -> None:
        async with Ledger("sqlite:///shop.db", partitions=2) as ledger:
            async with ledger.tx() as tx:
                await tx.append_many([("A000001", {"n": n}) for n in range(5)])
            await ledger.beat()
            await ledger.seal()
            await Keeper(ledger, [FolderSink("archive")], Rules()).deliverers[0].deliver()

    asyncio.run(fill())
    return tmp_path


def yk(*words: str) -> int:
    return int(run(list(words)))


def test_an_audit_in_order_exits_with_0(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert yk("audit", "sqlite:///shop.db", "--sink", SINK) == 0
    said = capsys.readouterr().out
    assert "all partitions: QUIET" in said
    assert "no finding is open" in said


def test_a_loss_exits_with_1_and_is_repaired_on_request(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "archive" / "A000001-3.log").unlink()
    (shop / "archive" / "readme.txt").write_text("foreign")
    words = ("audit", "sqlite:///shop.db", "--sink", SINK, "--slo", "100ms")
    assert yk(*words, "--json") == 1
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["kind"], each["key"], each["version"]) for each in line["findings"]] == [("missing", "A000001", 3)]
    assert line["foreign"] == {"count": 1, "examples": ["readme.txt"]}
    assert line["loss_bound_s"] > 0

    assert yk("audit", "gaps", "--in", "shop.db") == 1
    assert "missing" in capsys.readouterr().out
    finding = line["findings"][0]["id"]
    assert yk("audit", "show", finding[:6], "--in", "shop.db") == 0
    assert "promised within" in capsys.readouterr().out
    assert yk("audit", "acknowledge", finding, "--why", "known", "--in", "shop.db") == 0
    assert yk("audit", "gaps", "--in", "shop.db") == 0
    capsys.readouterr()

    assert yk("audit", "repair", "sqlite:///shop.db", "--sink", SINK, "--slo", "100ms", "--dry-run") == 1
    assert "1 version(s) would be brought back" in capsys.readouterr().out
    assert not (shop / "archive" / "A000001-3.log").exists()
    assert yk("audit", "repair", "sqlite:///shop.db", "--sink", SINK, "--slo", "100ms") == 0
    assert "repaired: A000001 version 3, read again from the sink" in capsys.readouterr().out
    assert json.loads((shop / "archive" / "A000001-3.log").read_bytes()) == {"n": 2}


@pytest.mark.parametrize(("words", "says"), [
    (("audit", "sqlite:///shop.db", "--sink", "archive/{key}.log"), "each once"),
    (("audit", "mysql://shop", "--sink", SINK), "nothing can be audited at 'mysql://shop'"),
    (("audit", "sqlite:///shop.db#nothing", "--sink", SINK), "there is no table nothing"),
    (("audit", "gaps"), "no audit has run here"),
    (("audit", "show", "zzz", "--in", "shop.db"), "there is no finding 'zzz'"),
    (("ledger", "keys", "--db", "sqlite:///nothing.db"), "there is no ledger"),
])
def test_what_cannot_be_done_is_said_with_what_to_do(shop: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...],
                                                     says: str) -> None:
    assert yk(*words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "do this" in said


def test_a_ledger_is_looked_into(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert yk("ledger", "keys", "--db", "sqlite:///shop.db", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"key": "A000001", "version": 5}
    assert yk("ledger", "history", "A000001", "--db", "sqlite:///shop.db") == 0
    assert '{"n":4}' in capsys.readouterr().out
    assert yk("ledger", "epochs", "--db", "sqlite:///shop.db", "--verify") == 0
    assert "the chain of hashes holds" in capsys.readouterr().out
    assert yk("ledger", "erase", "A000001", "--yes", "--db", "sqlite:///shop.db") == 0
    assert "5 content(s) of A000001 were erased" in capsys.readouterr().out
    assert yk("ledger", "history", "A000001", "--db", "sqlite:///shop.db", "--json") == 0
    assert all(json.loads(line)["erased"] for line in capsys.readouterr().out.splitlines())


def test_a_new_sink_is_filled_and_filling_it_again_changes_nothing(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert yk("ledger", "deliver", "second/{key}/{version}", "--db", "sqlite:///shop.db", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"stored": 7, "present": 0, "quarantined": 0, "left": 0, "down": ""}
    assert (shop / "second/A000001/5").read_bytes() == b'{"n":4}'
    assert yk("ledger", "deliver", "second/{key}/{version}", "--db", "sqlite:///shop.db") == 0  # no lease was left behind
    assert "0 stored, 0 were there already, 0 set aside, 0 left" in capsys.readouterr().out
    (shop / "third").write_text("a file where a folder should be")
    assert yk("ledger", "deliver", "third/{key}/{version}", "--db", "sqlite:///shop.db") == 2
    assert "is not a folder" in capsys.readouterr().err


def test_pruning_says_what_would_go_and_lets_it_go(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("ledger", "prune", "--db", "sqlite:///shop.db", "--older-than", "0")
    assert yk(*words, "--dry-run") == 0
    assert "7 row(s) would go" in capsys.readouterr().out
    assert yk("ledger", "keys", "--db", "sqlite:///shop.db", "--json") == 0
    assert yk(*words) == 0
    assert yk("ledger", "epochs", "--verify", "--db", "sqlite:///shop.db") == 0
    assert "the chain of hashes holds" in capsys.readouterr().out
    assert yk("ledger", "history", "A000001", "--db", "sqlite:///shop.db") == 2  # nothing of it is kept
    assert yk(*words, "--json") == 0


def test_schemas_are_tried_on_what_is_there(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "shapes.py").write_text("from yaoki.ledger import Schemas\nnow = Schemas(1, upcasts={0: dict})\n"
                                    "bad = Schemas(1)\nother = 7\n")
    words = ("--db", "sqlite:///shop.db")
    assert yk("ledger", "schemas", "shapes:now", *words) == 0
    assert "reads everything that is sealed" in capsys.readouterr().out
    assert yk("ledger", "schemas", "shapes:bad", "--limit", "2", *words) == 1
    assert capsys.readouterr().out.count("nothing leads up from it") == 2
    assert yk("ledger", "schemas", "shapes:other", *words) == 2
    assert yk("ledger", "schemas", "shapes", *words) == 2


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_a_watch_goes_on_over_an_outage_and_over_a_loss_beyond_the_brake(
        shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, json_too: list[str]) -> None:
    monkeypatch.setattr("yaoki.ledger.rounds.AGAIN_S", 0.01)
    for version in (2, 3):
        (shop / "archive" / f"A000001-{version}.log").unlink()
    words = ("audit", "sqlite:///shop.db", "--sink", SINK, "--slo", "100ms")
    assert yk(*words) == 1
    look, looks = Watch.look, 0

    async def failing(watch: Watch, **how: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise OSError("the sink is away")
        if looks == 4:
            raise KeyboardInterrupt
        return await look(watch, **how)

    monkeypatch.setattr(Watch, "look", failing)
    capsys.readouterr()
    assert yk(*words, "--every", "10ms", "--watch", "--no-canary", "--repair", "--limit", "1", *json_too) == 130
    told = capsys.readouterr()
    assert looks == 4
    said = told.out if json_too else told.err
    assert said.count("2 versions would be repaired, the limit is 1") == 2
    assert said.count("OSError: the sink is away") == 1
    assert not (shop / "archive" / "A000001-2.log").exists()

"""`yk deps`: what a person sees of the breakers that a fleet shares, and what their orders do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from yaoki.cli.frame.root import run
from yaoki.policies import breaker
from yaoki.policies.shared import Keeper


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/breakers.db"


def yk(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run(words)
    said = capfd.readouterr()
    return code, said.out, said.err


def test_an_order_reaches_the_nodes_and_is_taken_back(store: str, capfd: pytest.CaptureFixture[str]):
    node = breaker()
    keeper = Keeper(store, node="n1")
    keeper.add(node, "flights")
    keeper.refresh()
    assert yk(capfd, "deps", "list", "--store", store)[0] == 0
    code, out, _ = yk(capfd, "deps", "trip", "flights", "--store", store, "--why", "migration", "--for", "1h")
    assert code == 0
    assert "yk deps reset flights" in out
    keeper.refresh()
    assert node.state == "forced_open"
    code, out, _ = yk(capfd, "deps", "list", "--store", store, "--json")
    assert code == 1, "a breaker that is not closed is a finding"
    assert json.loads(out)["order"]["why"] == "migration"
    yk(capfd, "deps", "reset", "flights", "--store", store)
    keeper.refresh()
    assert node.state == "closed"
    keeper.close()


def test_show_names_the_nodes(store: str, capfd: pytest.CaptureFixture[str]):
    keeper = Keeper(store, node="rome:17")
    keeper.add(breaker(), "flights")
    keeper.refresh()
    _, out, _ = yk(capfd, "deps", "show", "flights", "--store", store)
    assert "rome:17" in out
    keeper.close()


@pytest.mark.parametrize(("words", "says"), [
    (("deps", "list"), "no store of shared breakers was named"),
    (("deps", "list", "--store", "etcd://x"), "etcd"),
    (("deps", "list", "--store", "redis://user:hunter2@127.0.0.1:1/0"), "cannot be used"),
    (("deps", "list", "--store", "sqlite:////no/such/folder/x.db"), "cannot be used"),
])
def test_a_store_that_cannot_be_used_is_said_without_its_password(words: tuple[str, ...], says: str, capfd: pytest.CaptureFixture[str]):
    code, _, err = yk(capfd, *words)
    assert code == 2
    assert says in err
    assert "hunter2" not in err
    assert "Traceback" not in err



"""What every store of shared breakers must do: memory, SQLite, Redis, DynamoDB and PostgreSQL, the real ones on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from contracts.test_messages_brokers import running_redis
from servers import PostgresServer, free_port
from yaoki.errors import ConfigError
from yaoki.policies.shared import store_at
from yaoki.policies.shared.stores import Entry, Store
from yaoki.policies.shared.stores.memory import MemoryStore

Open = Callable[[], Store]
"""Opens the store again, as another process would."""


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield f"{url}/0"


@pytest.fixture(scope="session")
def dynamodb_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"dynamodb://breakers?endpoint=http://{host}:{port}&region=eu-west-1&timeout=30"
    server.stop()


@pytest.fixture(params=["memory", "sqlite", "redis", "dynamodb", "postgres"])
def opener(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    opened: list[Store] = []

    def opening(make: Callable[[], Store]) -> Open:
        def again() -> Store:
            opened.append(make())
            return opened[-1]

        return again

    if request.param == "memory":
        kept = MemoryStore()
        yield lambda: kept
    elif request.param == "sqlite":
        yield opening(lambda: store_at(f"sqlite:///{tmp_path}/breakers.db"))
    elif request.param == "redis":
        url = request.getfixturevalue("redis_url")
        import redis

        with redis.Redis.from_url(url) as client:
            client.flushdb()
        yield opening(lambda: store_at(url))
    elif request.param == "dynamodb":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        url = request.getfixturevalue("dynamodb_url").replace("breakers", f"breakers-{free_port()}")
        first: Any = store_at(url)
        first.create()
        first.close()
        yield opening(lambda: store_at(url))
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.new_database()
        yield opening(lambda: store_at(url))
    for store in opened:
        store.close()


@pytest.fixture
def store(opener: Open) -> Store:
    return opener()


def keys(rows: list[Entry]) -> list[tuple[str, str, str, bytes]]:
    return [(row.service, row.kind, row.name, row.value) for row in rows]


def test_a_row_is_read_back_by_another_process_with_the_time_it_has_left(opener: Open):
    opener().put("flights", "vote", "n1", b'{"open":true}', 30.0)
    (row,) = opener().rows("flights")
    assert keys([row]) == [("flights", "vote", "n1", b'{"open":true}')]
    assert 25.0 < row.left_s < 31.5


def test_a_row_is_replaced_and_removed(store: Store):
    store.put("flights", "vote", "n1", b"1", 30.0)
    store.put("flights", "vote", "n1", b"2", 30.0)
    store.put("flights", "order", "", b"3", 30.0)
    assert keys(store.rows("flights")) == [("flights", "order", "", b"3"), ("flights", "vote", "n1", b"2")]
    store.remove("flights", "vote", "n1")
    store.remove("flights", "vote", "n1")
    assert keys(store.rows("flights")) == [("flights", "order", "", b"3")]


def test_services_do_not_see_each_other_and_all_can_be_listed(store: Store):
    store.put("flights", "vote", "n1", b"1", 30.0)
    store.put("hotels", "vote", "n1", b"2", 30.0)
    assert [row.service for row in store.rows("hotels")] == ["hotels"]
    assert [row.service for row in store.rows()] == ["flights", "hotels"]


def test_what_has_run_out_is_not_read_even_if_the_store_keeps_it(store: Store):
    store.put("flights", "vote", "old", b"1", 0.2)
    store.put("flights", "vote", "new", b"2", 30.0)
    time.sleep(1.3)  # DynamoDB's clock is known to a second
    assert [row.name for row in store.rows("flights")] == ["new"]


def test_a_lease_has_one_owner_until_it_runs_out(opener: Open):
    first, second = opener(), opener()
    for lease_s in (1.0, 10.0, 30.0):  # until the machine has not stood still for so long
        service, began = f"flights-{lease_s}", time.monotonic()
        assert first.acquire(service, "probe", "n1", lease_s)
        assert first.acquire(service, "probe", "n1", lease_s), "its owner renews it"
        refused = not second.acquire(service, "probe", "n2", 100.0)
        if time.monotonic() - began < 0.9 * lease_s:
            break
    assert refused
    time.sleep(lease_s + 0.6)
    assert second.acquire(service, "probe", "n2", 100.0), "a refused lease must not have lengthened it"
    assert not first.acquire(service, "probe", "n1", 1.0)


def test_of_many_who_want_a_lease_at_once_exactly_one_gets_it(opener: Open):
    stores = [opener() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: stores[i].acquire("flights", "probe", f"n{i}", 60.0), range(8)))
    assert sum(won) == 1


def test_hostile_names_and_values_are_only_data(store: Store):
    service, node = "a'; DROP TABLE yaoki_breaker; --", 'n|"1":2'
    store.put(service, "vote", node, b"\x00|\xff", 30.0)
    assert keys(store.rows(service)) == [(service, "vote", node, b"\x00|\xff")]


def test_an_unknown_kind_of_store_is_said():
    with pytest.raises(ConfigError, match="etcd"):
        store_at("etcd://localhost")

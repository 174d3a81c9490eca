"""boto3, redis-py, SQLAlchemy, psycopg and asyncpg through a service, against real servers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiobotocore.session
import asyncpg
import psycopg
import pytest
import redis
import redis.asyncio
import sqlalchemy
from botocore.exceptions import ClientError
from sqlalchemy.orm import sessionmaker

from contracts.test_messages_brokers import running_redis
from servers import PostgresServer, free_port
from yaoki import effect
from yaoki.effect import Effect
from yaoki.errors import ConfigError
from yaoki.integrations import aws
from yaoki.integrations import redis as redis_integration
from yaoki.integrations.sql import asyncpg_begin, transaction
from yaoki.policies import backoff, pipeline, retry
from yaoki.service import Fault, Point, Service, faults

pytestmark = pytest.mark.live


def service(name: str) -> Service:
    return Service(name, policy=pipeline(retry(4, backoff.fixed(0.0), budget=False)))


class Lost:
    """Loses the replies to the first `times` attempts: the effect has happened, and nobody knows."""

    def __init__(self, times: int = 1) -> None:
        self.times = times
        self.seen: list[Point] = []

    def __call__(self, point: Point) -> Fault | None:
        self.seen.append(point)
        if len(self.seen) > self.times:
            return None
        return Fault(name="call.lost_ack", lose=ConnectionResetError)


# ── AWS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def aws_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def settings(aws_endpoint: str) -> dict[str, Any]:
    return {"endpoint_url": aws_endpoint, "region_name": "eu-west-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}


@pytest.fixture
def table(settings: dict[str, Any]) -> str:
    import boto3

    name = f"t{free_port()}"
    boto3.client("dynamodb", **settings).create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}])
    return name


def test_a_read_of_dynamodb_is_repeated_when_its_answer_is_lost(settings: dict[str, Any], table: str):
    dynamodb = aws.client("dynamodb", service=service("table"), **settings)
    dynamodb.put_item(TableName=table, Item={"k": {"S": "a"}})
    lost = Lost(2)
    with faults.use(lost):
        assert dynamodb.get_item(TableName=table, Key={"k": {"S": "a"}})["Item"] == {"k": {"S": "a"}}
    assert [point.operation for point in lost.seen] == ["GetItem"] * 3


def test_a_write_without_a_token_is_not_repeated_unless_the_user_says_so(settings: dict[str, Any], table: str):
    dynamodb = aws.client("dynamodb", service=service("table"), **settings)
    with faults.use(Lost()), pytest.raises(ConnectionResetError):
        dynamodb.update_item(TableName=table, Key={"k": {"S": "a"}}, UpdateExpression="ADD n :one", ExpressionAttributeValues={":one": {"N": "1"}})
    again = aws.client("dynamodb", service=service("table"), idempotent={"PutItem"}, **settings)
    with faults.use(Lost()):
        again.put_item(TableName=table, Item={"k": {"S": "b"}})


def test_a_token_is_the_same_on_every_attempt_and_comes_from_the_saga_step(settings: dict[str, Any], table: str):
    dynamodb = aws.client("dynamodb", service=service("table"), **settings)
    sent: list[str] = []
    dynamodb.meta.events.register("before-call.dynamodb.TransactWriteItems", lambda params, **_: sent.append(params["body"].decode()))
    token = effect.current.set(Effect("run-1", "book", "pay"))
    try:
        with faults.use(Lost()):
            dynamodb.transact_write_items(TransactItems=[{"Put": {"TableName": table, "Item": {"k": {"S": "t"}}}}])
    finally:
        effect.current.reset(token)
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert "ClientRequestToken" in sent[0]


def test_an_answer_of_aws_is_the_callers_own_error(settings: dict[str, Any]):
    dynamodb = aws.client("dynamodb", service=service("table"), **settings)
    with pytest.raises(ClientError, match="ResourceNotFound"):
        dynamodb.get_item(TableName="nowhere", Key={"k": {"S": "a"}})


def test_a_client_that_retries_by_itself_is_refused(settings: dict[str, Any]):
    import boto3

    with pytest.raises(ConfigError, match="attempts"):
        aws.guard(boto3.client("dynamodb", **settings), service("table"))


async def test_aiobotocore_goes_the_same_way(settings: dict[str, Any], table: str):
    session = aiobotocore.session.get_session()
    async with session.create_client("dynamodb", config=aws.ONE_ATTEMPT, **settings) as made:
        dynamodb = aws.guard(made, service("table"))
        with faults.use(lost := Lost()):
            assert "Items" in await dynamodb.scan(TableName=table)
        assert len(lost.seen) == 2


# ── Redis ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield int(url.rpartition(":")[2])


def test_redis_repeats_what_has_the_same_result_twice_and_nothing_else(redis_port: int):
    with redis.Redis(port=redis_port, retry=None) as made:
        cache = redis_integration.guard(made, service("cache"))
        with faults.use(Lost()):
            cache.set("a", "1")
        with faults.use(Lost()):
            assert cache.get("a") == b"1"
        with faults.use(Lost()), pytest.raises(ConnectionResetError):
            cache.incr("n")
        assert cache.get("n") == b"1", "once, although nobody knew"


async def test_redis_asyncio_goes_the_same_way(redis_port: int):
    async with redis.asyncio.Redis(port=redis_port, retry=None) as made:
        cache = redis_integration.guard(made, service("cache"))
        with faults.use(lost := Lost()):
            await cache.set("b", "2")
        assert len(lost.seen) == 2
        assert await cache.get("b") == b"2"


def test_a_redis_client_that_retries_by_itself_is_refused(redis_port: int):
    with redis.Redis(port=redis_port) as made, pytest.raises(ConfigError, match="by itself"):
        redis_integration.guard(made, service("cache"))


# ── transactions ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    made = postgres.new_database()
    with psycopg.connect(made) as connection:
        connection.execute("CREATE TABLE account (name text PRIMARY KEY, balance int)")
        connection.execute("INSERT INTO account VALUES ('a', 100), ('b', 100)")
    return made


def total(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT sum(balance) FROM account").fetchone()
        assert row is not None
        return int(row[0])


def test_serialization_failures_are_repeated_as_whole_transactions(url: str):
    async def main() -> int:
        runs, two_at_once = 0, asyncio.Barrier(2)
        async with asyncpg.create_pool(url, min_size=8, max_size=8) as pool:
            db = Service("accounts", policy=pipeline(retry(200, backoff.exponential(0.001, cap=0.05), budget=False)))

            async def move(connection: Any) -> None:
                nonlocal runs
                runs += 1
                number = runs
                (balance,) = await connection.fetchrow("SELECT balance FROM account WHERE name = 'a'")
                if number <= 2:  # of the first two, both have read before either writes
                    await two_at_once.wait()
                await connection.execute("UPDATE account SET balance = $1 WHERE name = 'a'", balance - 1)
                await connection.execute("UPDATE account SET balance = balance + 1 WHERE name = 'b'")

            begin = asyncpg_begin(pool, isolation="serializable")
            await asyncio.gather(*(transaction(db, begin, move) for _ in range(24)))
            assert (await pool.fetchval("SELECT balance FROM account WHERE name = 'a'")) == 76
        return runs

    assert asyncio.run(main()) > 24, "no transaction collided: the test has not tested"
    assert total(url) == 200


class Dying:
    """A psycopg transaction whose server connection dies: before COMMIT is sent, or when it has been carried out."""

    def __init__(self, url: str, when: str) -> None:
        self.url, self.when, self.times = url, when, 0

    @contextmanager
    def begin(self) -> Iterator[Any]:
        self.times += 1
        with psycopg.connect(self.url) as connection:
            if self.times == 1 and self.when == "before":
                connection.execute("UPDATE account SET balance = 0")
                with psycopg.connect(self.url, autocommit=True) as other:
                    other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
            yield connection
        if self.times == 1 and self.when == "after":
            raise psycopg.OperationalError("the connection was lost while COMMIT was under way")


def add(connection: Any) -> None:
    connection.execute("UPDATE account SET balance = balance + 1 WHERE name = 'a'")


def test_a_connection_lost_before_commit_is_repeated_for_nothing_happened(url: str):
    dying = Dying(url, "before")
    transaction(service("accounts"), dying.begin, add)
    assert dying.times == 2
    assert total(url) == 201


def test_a_connection_lost_in_commit_is_not_repeated_unless_that_is_harmless(url: str):
    with pytest.raises(psycopg.OperationalError):
        transaction(service("accounts"), Dying(url, "after").begin, add)
    assert total(url) == 201, "it was committed, and nobody knew"

    def upsert(connection: Any) -> None:
        connection.execute("INSERT INTO account VALUES ('c', 7) ON CONFLICT (name) DO UPDATE SET balance = 7")

    dying = Dying(url, "after")
    transaction(service("accounts"), dying.begin, upsert, idempotent=True)
    assert dying.times == 2
    assert total(url) == 208


def test_an_error_of_the_work_is_the_callers_own_and_rolls_back(url: str):
    def fails(connection: Any) -> None:
        add(connection)
        raise KeyError("bug")

    with pytest.raises(KeyError):
        transaction(service("accounts"), lambda: psycopg.connect(url), fails)
    assert total(url) == 200


def test_sqlalchemy_sessions_and_engines(url: str):
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    add_sql = sqlalchemy.text("UPDATE account SET balance = balance + 1 WHERE name = 'a'")
    transaction(service("accounts"), engine.begin, lambda connection: connection.execute(add_sql))
    transaction(service("accounts"), sessionmaker(engine).begin, lambda session: session.execute(add_sql))
    assert total(url) == 202
    engine.dispose()

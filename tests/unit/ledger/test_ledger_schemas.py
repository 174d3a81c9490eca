"""Contents of every shape that there ever was are read as the shape of today, or refused by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from yaoki.errors import ConfigError, SchemaError
from yaoki.ledger import Ledger, Schemas
from yaoki.ledger.schemas import unreadable


class Change(msgspec.Struct):
    points: int
    reason: str


def with_reason(data: dict[str, Any]) -> dict[str, Any]:
    return {"points": data["euros"] * 100, "reason": "unknown"}


TODAY = Schemas(2, upcasts={0: lambda data: {"euros": data}, 1: with_reason}, type=Change)


@pytest.fixture
async def ledger() -> AsyncIterator[Ledger]:
    async with Ledger("sqlite://", partitions=2, schemas=TODAY) as ledger:
        async with ledger.tx() as tx:
            await tx.append("a", 3, schema=0)
            await tx.append("a", {"euros": 4}, schema=1)
            await tx.append("a", Change(500, "purchase"))
        yield ledger


async def test_every_shape_is_read_as_the_newest(ledger: Ledger) -> None:
    found = await ledger.history("a")
    assert [each.schema for each in found] == [0, 1, 2]
    assert [each.value() for each in found] == [Change(300, "unknown"), Change(400, "unknown"), Change(500, "purchase")]
    assert await ledger.state("a", lambda sum_, change: (sum_ or 0) + change.points) == 1200
    assert [each async for each in unreadable(ledger, TODAY)] == []


@pytest.mark.parametrize(("schemas", "names", "why"), [
    (Schemas(1, upcasts={0: lambda data: data}), [3], "has schema 2, and this program knows 1"),
    (Schemas(2, upcasts={1: with_reason}), [1], "has schema 0, and nothing leads up from it"),
    (Schemas(2, upcasts={0: lambda data: {}, 1: with_reason}), [1], "the up-cast from schema 1 fails: 'euros'"),
    (Schemas(2, upcasts={0: lambda data: data["x"], 1: with_reason}), [1], "the up-cast from schema 0 fails"),
    (Schemas(3, upcasts={0: lambda data: {}, 1: dict, 2: dict}, type=Change), [1, 2], "it is no Change: Object missing required")])
async def test_what_cannot_be_read_is_refused_by_name_and_found_before_a_deploy(
        ledger: Ledger, schemas: Schemas, names: list[int], why: str) -> None:
    await ledger.seal()
    found = [each async for each in unreadable(ledger, schemas)]
    assert [each.version for each in found] == names
    version = (await ledger.history("a"))[names[0] - 1]
    with pytest.raises(SchemaError, match=f"a version {names[0]}.*({why})") as caught:
        msgspec.structs.replace(version, schemas=schemas).value()
    assert caught.value.happened is not True
    assert [each async for each in unreadable(ledger, schemas, since=await ledger.store.now() + 1)] == []


@pytest.mark.parametrize(("current", "ways"), [(3, {1: dict}), (0, {}), (2, {2: dict}), (1, {-1: dict, 0: dict})])
def test_ways_that_do_not_lead_there_are_refused(current: int, ways: dict[int, Any]) -> None:
    with pytest.raises(ConfigError, match="do not lead to schema"):
        Schemas(current, upcasts=ways)

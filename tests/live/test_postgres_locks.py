"""Locks on PostgreSQL while many claim and end at once: one holder for each key, and always somebody who is woken."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from servers import PostgresServer
from yaoki.saga.journal.port import Append, NewRun
from yaoki.saga.journal.postgres import PostgresJournal
from yaoki.saga.records import RunState

pytestmark = pytest.mark.live


async def test_of_those_who_claim_at_once_all_agree_who_is_first(postgres: PostgresServer):
    url = postgres.new_database()
    journals = [PostgresJournal(url, name=f"w{n}") for n in range(4)]
    for journal in journals:
        await journal.open()
    for round_ in range(25):
        for n, journal in enumerate(journals):
            await journal.create(NewRun(f"{round_}-{n}", "trip", "hash", b"{}", at=1.0))
        answers = await asyncio.gather(*[journal.claim_lock(f"{round_}-{n}", f"key-{round_}") for n, journal in enumerate(journals)])
        (holder,) = [claim.run for claim in await journals[0].claims(f"{round_}-0") if claim.holds]
        assert answers.count(holder) >= 1
        assert [n for n, answer in enumerate(answers) if answer == f"{round_}-{n}"] == [int(holder.partition("-")[2])], "one holds it"
    for journal in journals:
        await journal.close()


async def test_whoever_waits_is_woken_however_the_end_and_the_claim_meet(postgres: PostgresServer):
    """The holder ends, and another one claims, in the same moment: either he gets the key, or he is asked to wake."""
    url = postgres.new_database()
    one, two = PostgresJournal(url, name="one"), PostgresJournal(url, name="two")
    await one.open()
    await two.open()
    met = set()
    for n in range(40):  # in the first four the claim comes first, and in the last four the end; in the others it is as it happens
        first = (await one.create(NewRun(f"first-{n}", "trip", "hash", b"{}", at=1.0))).header.no
        second = (await two.create(NewRun(f"second-{n}", "trip", "hash", b"{}", at=1.0))).header.no
        assert await one.claim_lock(f"first-{n}", f"key-{n}") == f"first-{n}"

        ended, claimed = asyncio.Event(), asyncio.Event()

        async def ends(n: int, no: int, ended: asyncio.Event, claimed: asyncio.Event) -> None:
            if n < 4:
                await claimed.wait()
            await one.append(Append(no, 0, (), RunState.COMPLETED, b"null", at=2.0))
            ended.set()
            await one.settle_locks(f"first-{n}")

        async def waits(n: int, no: int, ended: asyncio.Event, claimed: asyncio.Event) -> str:
            if n >= 36:
                await ended.wait()
            else:
                await asyncio.sleep((n % 8) / 2000)
            holder = await two.claim_lock(f"second-{n}", f"key-{n}")
            claimed.set()
            if holder != f"second-{n}":
                await two.append(Append(no, 0, (), at=2.0, due_at=inf))
            return holder

        _, holder = await asyncio.gather(ends(n, first, ended, claimed), waits(n, second, ended, claimed))
        met.add(holder.partition("-")[0])
        if holder == f"first-{n}":
            assert (await two.take_one(f"second-{n}")) is not None
            assert f"second-{n}" in [asked.run for asked in await two.requests() if asked.kind == "wake"], "nobody would wake it"
    assert met == {"first", "second"}, "both were to be seen"
    await one.close()
    await two.close()


async def test_claims_of_a_run_and_of_all_that_it_has_started(postgres: PostgresServer):
    """By which circles of waits are found; the names of others sort between and beside theirs."""
    journal = PostgresJournal(postgres.new_database())
    await journal.open()
    for name in ("p", "p/a", "p/a/b", "p-x", "p0", "q"):
        await journal.create(NewRun(name, "trip", "hash", b"{}", at=1.0))
        await journal.claim_lock(name, f"key of {name}")
        await journal.claim_lock(name, "all")
    keys = {claim.key for claim in await journal.claims("p", family=True)}
    assert keys == {"all", "key of p", "key of p/a", "key of p/a/b"}
    assert {claim.key for claim in await journal.claims("p")} == {"all", "key of p"}
    assert [claim.run for claim in await journal.claims("p/a/b") if claim.key == "all"] == ["p", "p/a", "p/a/b", "p-x", "p0", "q"]
    await journal.close()

"""What contract tests share: each journal, and a saga in each of its forms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from contracts.choreography_world import FORMS, choreographed, orchestrated
from contracts.journals import PLACES, Place
from yaoki.saga.define import Saga
from yaoki.saga.journal.port import Journal
from yaoki.saga.journal.postgres import PostgresJournal


@pytest.fixture(params=[*PLACES, pytest.param("postgres", marks=pytest.mark.live)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").new_database()
        return lambda: PostgresJournal(url)
    return PLACES[request.param](tmp_path)


@pytest.fixture
async def journal(place: Place) -> AsyncIterator[Journal]:
    journal = place()
    await journal.open()
    yield journal
    await journal.close()


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory):
    from contracts.test_messages_brokers import running_nats

    with running_nats(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture(params=FORMS)
def form(request, tmp_path):
    """Opens a saga with its services in one of the forms."""

    def make(saga: Saga, services: Mapping[str, Sequence[str]]):
        if request.param == "orchestrated":
            return orchestrated(saga, tmp_path)
        return choreographed(saga, services, request.param, tmp_path, request)

    return make

"""What contract tests share: a saga in each of its forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from contracts.choreography_world import FORMS, choreographed, orchestrated
from yaoki.saga.define import Saga


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

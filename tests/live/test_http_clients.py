"""requests and aiohttp through a Service, against a real server on loopback: the same behaviour as httpx's."""

from __future__ import annotations

import asyncio
import io
from typing import Any, NamedTuple

import aiohttp
import pytest
import requests

from live.test_httpx import QUICK, Script
from servers import free_port
from yaoki import effect
from yaoki.errors import AttemptTimeoutError, BreakerOpenError, ConfigError
from yaoki.integrations.aiohttp import session as aiohttp_session
from yaoki.integrations.requests import Adapter
from yaoki.integrations.requests import session as requests_session
from yaoki.policies import breaker, classify, deadline, nothing_happened, pipeline, retry, timeout
from yaoki.service import Service

pytestmark = pytest.mark.live


class Answer(NamedTuple):
    status: int
    body: bytes


def by_requests(url: str, service: Service, method: str = "GET", **settings: Any) -> Answer:
    with requests_session(service) as http:
        reply = http.request(method, url, **settings)
        return Answer(reply.status_code, reply.content)


def by_aiohttp(url: str, service: Service, method: str = "GET", **settings: Any) -> Answer:
    async def main() -> Answer:
        async with aiohttp_session(service) as http, http.request(method, url, **settings) as reply:
            return Answer(reply.status, await reply.read())

    return asyncio.run(main())


@pytest.fixture
def script():
    made = Script()
    yield made
    made.close()


@pytest.fixture(params=["requests", "aiohttp"])
def call(request, script):
    made = by_requests if request.param == "requests" else by_aiohttp
    return lambda service, method="GET", url=None, **settings: made(url or f"{script.url}/bookings", service, method, **settings)


def test_a_get_that_gets_503_is_repeated_and_the_caller_sees_the_200(script, call):
    script.answers = [503, 503, 200]
    assert call(Service("hotel", policy=retry(3, QUICK, budget=False))) == Answer(200, b"{}")
    assert len(script.seen) == 3


def test_the_last_503_comes_back_as_an_answer_that_can_be_read(script, call):
    script.answers = [503, 503, 503]
    assert call(Service("hotel", policy=retry(3, QUICK, budget=False))) == Answer(503, b"{}")


def test_a_dropped_connection_is_repeated_only_where_that_is_harmless(script, call):
    script.answers = ["drop", 200]
    assert call(Service("hotel", policy=retry(3, QUICK, budget=False))).status == 200
    script.answers, before = ["drop", 200], len(script.seen)
    with pytest.raises((requests.ConnectionError, aiohttp.ClientError)) as failure:
        call(Service("hotel", policy=retry(3, QUICK, budget=False)), "POST")
    assert classify(failure.value).kind == "ambiguous"
    assert len(script.seen) == before + 1


def test_the_library_does_not_retry_by_itself(script, call):
    script.answers = ["drop"] * 5
    with pytest.raises((requests.ConnectionError, aiohttp.ClientError)):
        call(Service("hotel"))
    assert len(script.seen) == 1


def test_in_a_step_the_key_and_the_body_are_the_same_on_every_attempt(script, call):
    script.answers = [500, "drop", 200]
    token = effect.current.set(effect.Effect("trip-42", "book-trip", "hotel", traceparent="00-1-2-01"))
    try:
        assert call(Service("hotel", policy=retry(3, QUICK, budget=False)), "POST", json={"nights": 2}).status == 200
    finally:
        effect.current.reset(token)
    assert [seen["idempotency-key"] for seen in script.seen] == ["trip-42/hotel"] * 3
    assert {seen["traceparent"] for seen in script.seen} == {"00-1-2-01"}
    assert script.bodies[0] == script.bodies[2] != b""


def test_a_body_that_can_be_read_once_is_sent_once(script, call):
    for body, sent in ((b"x" * 100, 2), (io.BytesIO(b"x" * 100), 1)):
        script.seen.clear()
        script.answers = [(429, {"Retry-After": "0"}), 200]
        assert call(Service("hotel", policy=retry(3, QUICK, budget=False)), "POST", data=body).status == (200 if sent == 2 else 429)
        assert len(script.seen) == sent


def test_what_remains_of_the_deadline_travels(script, call):
    call(Service("hotel", policy=deadline(100)))
    assert 10_000 < int(script.seen[0]["x-yaoki-timeout-ms"]) <= 100_000


def test_a_slow_server_is_cut_off(script, call):
    script.answers = ["slow"]
    with pytest.raises((AttemptTimeoutError, requests.ReadTimeout)) as failure:
        call(Service("hotel", policy=pipeline(deadline(50), timeout(0.1))))
    assert classify(failure.value).kind == "ambiguous"


def test_failures_open_the_breaker_and_not_founds_do_not(script, call):
    service = Service("hotel", policy=breaker(minimum=3))
    script.answers = [404] * 5 + [500] * 5
    for _ in range(10):
        call(service)
    with pytest.raises(BreakerOpenError):
        call(service)
    assert len(script.seen) == 10


def test_a_refused_connection_certainly_did_not_happen(call):
    url = f"http://127.0.0.1:{free_port()}/"
    with pytest.raises((requests.ConnectionError, aiohttp.ClientError)) as failure:
        call(Service("hotel", policy=retry(2, QUICK, budget=False)), "POST", url=url)
    assert nothing_happened(failure.value)


def test_requests_counts_attempts_and_takes_no_retries_of_its_own(script):
    script.answers = [503, 503]
    with requests_session(Service("hotel", policy=retry(2, QUICK, budget=False))) as http:
        assert http.get(script.url).extensions["yaoki_attempts"] == 2
    with pytest.raises(ConfigError, match="multiply"):
        Adapter(Service("hotel"), max_retries=3)


def test_after_an_attempt_in_doubt_a_refusal_by_requests_is_in_doubt(script):
    script.answers = ["drop", 404]
    with requests_session(Service("hotel", policy=retry(3, QUICK, budget=False))) as http:
        reply = http.get(script.url)
    with pytest.raises(requests.HTTPError) as failure:
        reply.raise_for_status()
    assert not nothing_happened(failure.value)

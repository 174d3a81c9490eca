"""httpx through a Service, against a real server on loopback."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from servers import free_port
from yaoki import effect, events
from yaoki.errors import AttemptTimeoutError, BreakerOpenError
from yaoki.integrations.httpx import AsyncTransport, async_client, client
from yaoki.policies import backoff, breaker, classify, deadline, nothing_happened, pipeline, retry, timeout
from yaoki.service import Fault, Service, faults

pytestmark = pytest.mark.live

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the system's certificates takes a third of a second a client
QUICK = backoff.fixed(0.001)


class Script:
    """A server that answers with the next of a list: a status, a pair of status and headers, "drop", "slow", or seconds to wait.

    What is slow is answered when `gate` is set, which ending does at the latest.
    """

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.seen: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.gate = threading.Event()
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                script.seen.append({"method": self.command, **{name.lower(): value for name, value in self.headers.items()}})
                script.bodies.append(self.rfile.read(int(self.headers.get("content-length", 0))))
                answer = script.answers.pop(0) if script.answers else 200
                if answer == "drop":
                    self.close_connection = True
                    return
                if answer == "slow" or isinstance(answer, float):
                    script.gate.wait(answer if isinstance(answer, float) else 100)
                    answer = 200
                status, headers = answer if isinstance(answer, tuple) else (answer, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_GET  # noqa: N815 - the standard library's names

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is what these tests are about."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def script() -> Iterator[Script]:
    made = Script()
    yield made
    made.close()


Caller = Callable[..., httpx.Response]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, script: Script) -> Caller:
    """One request with a client of the given colour."""
    import asyncio

    def sync(service: Service, method: str = "GET", **settings: Any) -> httpx.Response:
        with client(service, base_url=script.url, transport=httpx.HTTPTransport(verify=PLAIN)) as made:
            return made.request(method, "/bookings", **settings)

    async def aio(service: Service, method: str, settings: dict[str, Any]) -> httpx.Response:
        async with async_client(service, base_url=script.url, transport=httpx.AsyncHTTPTransport(verify=PLAIN)) as made:
            return await made.request(method, "/bookings", **settings)

    if request.param == "sync":
        return sync
    return lambda service, method="GET", **settings: asyncio.run(aio(service, method, settings))


def test_a_get_that_gets_503_is_repeated_and_the_caller_sees_the_200(script: Script, call: Caller) -> None:
    script.answers = [503, 503, 200]
    reply = call(Service("hotel", policy=retry(3, QUICK, budget=False)))
    assert (reply.status_code, reply.json(), len(script.seen)) == (200, {}, 3)


def test_the_last_503_comes_back_as_a_response_that_can_be_read(script: Script, call: Caller) -> None:
    script.answers = [503, 503, 503]
    reply = call(Service("hotel", policy=retry(3, QUICK, budget=False)))
    assert (reply.status_code, reply.json(), reply.extensions["yaoki_attempts"]) == (503, {}, 3)


def test_a_post_without_a_key_is_not_repeated_when_it_may_have_happened(script: Script, call: Caller) -> None:
    script.answers = [500]
    assert call(Service("hotel", policy=retry(3, QUICK, budget=False)), "POST").status_code == 500
    assert len(script.seen) == 1


def test_a_post_that_was_throttled_is_repeated(script: Script, call: Caller) -> None:
    script.answers = [(429, {"Retry-After": "0"}), 200]
    assert call(Service("hotel", policy=retry(3, QUICK, budget=False)), "POST").status_code == 200


def test_retry_after_beyond_the_deadline_fails_at_once(script: Script, call: Caller) -> None:
    script.answers = [(429, {"Retry-After": "600"})]
    began = time.monotonic()
    reply = call(Service("hotel", policy=pipeline(deadline(300), retry(3, QUICK, budget=False))))
    assert (reply.status_code, len(script.seen)) == (429, 1)
    assert time.monotonic() - began < 100


def test_in_a_step_the_key_and_trace_are_the_same_on_every_attempt(script: Script, call: Caller) -> None:
    script.answers = [500, "drop", 200]
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    token = effect.current.set(effect.Effect("trip-42", "book-trip", "hotel", traceparent=trace))
    try:
        reply = call(Service("hotel", policy=retry(3, QUICK, budget=False)), "POST", json={"nights": 2})
    finally:
        effect.current.reset(token)
    assert reply.status_code == 200
    assert [seen["idempotency-key"] for seen in script.seen] == ["trip-42/hotel"] * 3
    assert {seen["traceparent"] for seen in script.seen} == {trace}
    assert script.bodies[0] == script.bodies[2]


def test_the_second_request_of_a_step_has_a_key_of_its_own(script: Script, call: Caller) -> None:
    service = Service("hotel")
    token = effect.current.set(effect.Effect("trip-42", "book-trip", "hotel"))
    try:
        call(service, "POST")
        call(service, "GET")
        call(service, "POST")
    finally:
        effect.current.reset(token)
    assert [seen.get("idempotency-key") for seen in script.seen] == ["trip-42/hotel", None, "trip-42/hotel#2"]


def test_what_remains_of_the_deadline_travels_and_shrinks(script: Script, call: Caller) -> None:
    script.answers = [503, 200]
    call(Service("hotel", policy=pipeline(deadline(100), retry(2, backoff.fixed(0.05), budget=False))))
    first, second = (int(seen["x-yaoki-timeout-ms"]) for seen in script.seen)
    assert 10_000 < second <= first - 50
    assert first <= 100_000


def test_a_slow_server_is_cut_off_by_the_deadline(script: Script, call: Caller) -> None:
    script.answers = ["slow"]
    with pytest.raises((AttemptTimeoutError, httpx.ReadTimeout)) as failure:
        call(Service("hotel", policy=deadline(0.1)))
    assert classify(failure.value).kind == "ambiguous"


def test_failures_open_the_breaker_and_not_founds_do_not(script: Script, call: Caller) -> None:
    service = Service("hotel", policy=breaker(minimum=3))
    script.answers = [404] * 5 + [500] * 5
    for _ in range(10):
        call(service)
    with pytest.raises(BreakerOpenError):
        call(service)
    assert len(script.seen) == 10


def test_a_refused_connection_certainly_did_not_happen(call: Caller, script: Script) -> None:
    script.url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(httpx.ConnectError) as failure:
        call(Service("hotel", policy=retry(2, QUICK, budget=False)), "POST")
    assert nothing_happened(failure.value)


def test_a_refusal_after_an_attempt_in_doubt_is_in_doubt(script: Script, call: Caller) -> None:
    script.answers = ["drop", 404]
    token = effect.current.set(effect.Effect("trip-42", "book-trip", "hotel"))
    try:
        reply = call(Service("hotel", policy=retry(3, QUICK, budget=False)), "POST")
    finally:
        effect.current.reset(token)
    with pytest.raises(httpx.HTTPStatusError) as failure:
        reply.raise_for_status()
    assert not nothing_happened(failure.value)
    script.answers = [404]
    with pytest.raises(httpx.HTTPStatusError) as failure:
        call(Service("hotel"), "POST").raise_for_status()
    assert nothing_happened(failure.value)


def test_a_lost_reply_is_repeated_with_the_same_key_and_a_duplicate_is_delivered_twice(script: Script, call: Caller) -> None:
    plan = [Fault(name="lost", lose=lambda: httpx.ReadError("lost")), Fault(name="twice", deliveries=2)]
    heard: list[events.FaultInjected] = []
    token = effect.current.set(effect.Effect("trip-42", "book-trip", "hotel"))
    try:
        with faults.use(lambda _: plan.pop(0) if plan else None), events.listen(heard.append, kinds=(events.FaultInjected,)):
            reply = call(Service("hotel", policy=retry(3, QUICK, budget=False)), "POST")
    finally:
        effect.current.reset(token)
    assert reply.status_code == 200
    assert [seen["idempotency-key"] for seen in script.seen] == ["trip-42/hotel"] * 3
    assert [(each.fault, each.where) for each in heard] == [("lost", "POST /bookings"), ("twice", "POST /bookings")]


async def test_a_body_that_can_be_sent_only_once_is_sent_once(script: Script) -> None:
    async def body() -> Any:
        yield b"once"

    script.answers = [503, 200]
    service = Service("hotel", policy=retry(3, QUICK, budget=False), idempotent=True)
    async with async_client(service, base_url=script.url, transport=httpx.AsyncHTTPTransport(verify=PLAIN)) as made:
        reply = await made.post("/bookings", content=body(), headers={"Idempotency-Key": "1"})
    assert (reply.status_code, len(script.seen)) == (503, 1)


async def test_a_cancelled_request_is_let_go_and_leaves_no_connection_in_limbo(script: Script) -> None:
    import asyncio

    script.answers = ["slow"]
    pool = httpx.AsyncHTTPTransport(verify=PLAIN)
    service = Service("hotel", policy=pipeline(retry(3, QUICK, budget=False), timeout(100)))
    transport = AsyncTransport(service, pool)
    async with httpx.AsyncClient(transport=transport, base_url=script.url) as made:
        task = asyncio.create_task(made.get("/"))
        while not script.seen:  # noqa: ASYNC110 - a thread appends to it
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert service.numbers().in_flight == 0
        script.gate.set()
        while transport._carrier.let_go:  # noqa: ASYNC110 - until the server has answered
            await asyncio.sleep(0.01)
        assert pool._pool.connections == []
    assert len(script.seen) == 1


async def test_a_pool_survives_a_storm_of_timeouts(script: Script) -> None:
    """Cancelled inside httpx, a pool of four is dead after a second of them."""
    import asyncio

    script.answers = [late for _ in range(40) for late in (0.06, 200, 0.1)]
    service = Service("hotel", policy=timeout(0.05))
    pool = httpx.AsyncHTTPTransport(verify=PLAIN, limits=httpx.Limits(max_connections=4))
    async with httpx.AsyncClient(transport=AsyncTransport(service, pool), base_url=script.url, timeout=httpx.Timeout(2.0)) as made:
        async def caller() -> None:
            for _ in range(10):
                try:
                    await made.get("/")
                except (AttemptTimeoutError, httpx.TimeoutException):
                    pass

        await asyncio.gather(*(caller() for _ in range(12)))
        script.answers.clear()
        # The same pool, with all the time in the world: a dead one answers nobody.
        plain = httpx.AsyncClient(transport=pool, base_url=script.url, timeout=100)
        for _ in range(8):
            assert (await plain.get("/")).status_code == 200


async def test_closing_the_client_ends_what_was_let_go(script: Script) -> None:
    import asyncio

    script.answers = ["slow"]
    transport = AsyncTransport(Service("hotel", policy=timeout(0.05)), httpx.AsyncHTTPTransport(verify=PLAIN))
    async with httpx.AsyncClient(transport=transport, base_url=script.url, timeout=None) as made:
        with pytest.raises((AttemptTimeoutError, httpx.ReadTimeout)):
            await made.get("/")
    assert transport._carrier.let_go == 0
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


def test_the_twin_of_httpx_is_served_by_the_same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx2 has httpx's transports under another name; here httpx itself stands in for it."""
    import importlib
    import sys

    monkeypatch.setitem(sys.modules, "httpx2", httpx)
    monkeypatch.delitem(sys.modules, "yaoki.integrations.httpx2", raising=False)
    twin = importlib.import_module("yaoki.integrations.httpx2")
    answers = iter([503, 200])
    service = Service("hotel", policy=retry(2, QUICK, budget=False))
    transport = twin.Transport(service, httpx.MockTransport(lambda _: httpx.Response(next(answers))))
    with httpx.Client(transport=transport) as made:
        assert made.get("http://hotel/").status_code == 200
    monkeypatch.delitem(sys.modules, "yaoki.integrations.httpx2")

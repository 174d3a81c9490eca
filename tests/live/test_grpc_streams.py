"""Streams of answers through a Service: until the first message another attempt can take their place. A real server on loopback."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio
import pytest

from live.test_httpx import QUICK
from yaoki import effect
from yaoki.errors import AttemptTimeoutError, BreakerOpenError, DeadlineError
from yaoki.integrations.grpc import OPTIONS, Interceptor, async_interceptors
from yaoki.policies import attempts_made, breaker, budget, deadline, pipeline, retry, timeout
from yaoki.service import Service

pytestmark = pytest.mark.live

LIST, SELL = "/hotel.Hotel/List", "/hotel.Hotel/Sell"
Code = grpc.StatusCode
PATIENT_S = 30.0  # how long to wait for what must come


class Script(grpc.GenericRpcHandler):
    """Each call plays the next script: bytes are sent, a code ends it, "hang" waits for the client to go, "gate" for the test."""

    def __init__(self):
        self.scripts, self.seen = [], []
        self.arrived, self.gate, self.gone = threading.Event(), threading.Event(), threading.Event()
        self.server = grpc.server(ThreadPoolExecutor(8), handlers=[self])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details):
        return grpc.unary_stream_rpc_method_handler(self.play)

    def play(self, request, context):
        self.seen.append((request, dict(context.invocation_metadata()), context.time_remaining()))
        self.arrived.set()
        for step in self.scripts.pop(0) if self.scripts else (b"one", b"two"):
            if isinstance(step, bytes):
                yield step
            elif step == "gate":
                self.gate.wait(PATIENT_S)
            elif step == "hang":
                ended = threading.Event()
                if not context.add_callback(ended.set) or ended.wait(PATIENT_S):
                    self.gone.set()
                return
            else:
                code, trailing = step if isinstance(step, tuple) else (step, ())
                context.set_trailing_metadata(trailing)
                context.abort(code, "as told")

    def close(self):
        self.gate.set()
        self.server.stop(None).wait(PATIENT_S)


@pytest.fixture
def script():
    made = Script()
    yield made
    made.close()


def by_sync(port, service, method, settings, between):
    heard, metadata = [], settings.pop("metadata")
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as plain:
        call = grpc.intercept_channel(plain, Interceptor(service, **settings)).unary_stream(method)(b"request", metadata=metadata)
        try:
            for message in call:
                heard.append(message)
                between()
        except Exception as error:
            return heard, error
        assert call.code() is Code.OK
        return heard, None


def by_aio(port, service, method, settings, between):
    async def main():
        heard, metadata = [], settings.pop("metadata")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS,
                                             interceptors=async_interceptors(service, **settings)) as channel:
            call = channel.unary_stream(method)(b"request", metadata=metadata)
            try:
                async for message in call:
                    heard.append(message)
                    await asyncio.to_thread(between)
            except Exception as error:
                return heard, error
            assert await call.code() is Code.OK
            return heard, None

    return asyncio.run(main())


@pytest.fixture(params=[by_sync, by_aio], ids=["sync", "aio"])
def listen(request, script):
    """Read a stream to its end: the messages heard, and the error that ended it."""
    def listen(service, method=LIST, *, idempotent=(LIST,), streams=True, metadata=(), between=lambda: None):
        return request.param(script.port, service, method, {"idempotent": idempotent, "streams": streams, "metadata": metadata},
                             between)

    return listen


def previous(script):
    return [metadata.get("grpc-previous-rpc-attempts") for _, metadata, _ in script.seen]


def test_a_stream_that_fails_before_its_first_message_is_opened_again(script, listen):
    script.scripts = [[Code.UNAVAILABLE], [Code.UNAVAILABLE]]
    service = Service("hotel", policy=retry(3, QUICK, budget=False))
    assert listen(service) == ([b"one", b"two"], None)
    assert previous(script) == [None, "1", "2"]
    assert service.numbers().outcomes == {"ok": 0, "ok_after_retry": 1}


def test_after_the_first_message_the_stream_is_the_callers(script, listen):
    script.scripts = [[b"one", Code.UNAVAILABLE]]
    heard, error = listen(Service("hotel", policy=retry(3, QUICK, budget=False)))
    assert heard == [b"one"]
    assert error.code() is Code.UNAVAILABLE
    assert len(script.seen) == 1


def test_a_stream_without_messages_is_a_good_answer(script, listen):
    script.scripts = [[]]
    assert listen(Service("hotel", policy=retry(3, QUICK, budget=False))) == ([], None)
    assert len(script.seen) == 1


def test_who_may_not_happen_twice_is_repeated_only_when_the_server_asks_for_it(script, listen):
    service = Service("hotel", policy=retry(3, QUICK, budget=False))
    script.scripts = [[Code.UNAVAILABLE]]
    heard, error = listen(service, SELL)
    assert (heard, error.code(), len(script.seen)) == ([], Code.UNAVAILABLE, 1)
    script.scripts = [[(Code.UNAVAILABLE, (("grpc-retry-pushback-ms", "1"),))]]
    assert listen(service, SELL) == ([b"one", b"two"], None)
    script.scripts = [[(Code.UNAVAILABLE, (("grpc-retry-pushback-ms", "-1"),))]]
    heard, error = listen(service)
    assert (heard, error.code(), len(script.seen)) == ([], Code.UNAVAILABLE, 4)


def test_an_answer_is_not_asked_for_again(script, listen):
    for code in (Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.DEADLINE_EXCEEDED, Code.INTERNAL):
        script.scripts, script.seen = [[code]], []
        heard, error = listen(Service("hotel", policy=retry(3, QUICK, budget=False)))
        assert (heard, error.code(), len(script.seen)) == ([], code, 1)


def test_the_budget_pays_for_openings_too(script, listen):
    script.scripts = [[Code.UNAVAILABLE]] * 4
    service = Service("hotel", policy=retry(3, QUICK, budget=budget(0.1, start=1.0)))
    for calls in (2, 3):
        heard, error = listen(service)
        assert (heard, error.code(), len(script.seen)) == ([], Code.UNAVAILABLE, [2, 3][calls - 2])


def test_openings_that_fail_open_the_breaker_and_an_open_one_sends_nothing(script, listen):
    script.scripts = [[Code.UNAVAILABLE]] * 3
    service = Service("hotel", policy=breaker(minimum=3))
    for _ in range(3):
        listen(service)
    heard, error = listen(service)
    assert heard == []
    assert isinstance(error, BreakerOpenError)
    assert len(script.seen) == 3


def test_in_a_step_the_key_is_the_same_on_every_attempt(script, listen):
    script.scripts = [[Code.UNAVAILABLE]]
    token = effect.current.set(effect.Effect("trip-42", "book-trip", "hotel", traceparent="00-1-2-01"))
    try:
        listen(Service("hotel", policy=retry(3, QUICK, budget=False)), metadata=(("own", "1"),))
    finally:
        effect.current.reset(token)
    assert [(metadata["idempotency-key"], metadata["traceparent"], metadata["own"]) for _, metadata, _ in script.seen] == [
        ("trip-42/hotel", "00-1-2-01", "1")] * 2


def test_the_attempt_timeout_bounds_the_opening_and_not_the_stream(script, listen):
    """The first attempt hangs and is replaced. Who is slow here is replaced as well, so a slow machine only takes longer."""
    script.scripts = [["hang"]] + [[b"one", "gate", b"two"]] * 500
    waited = threading.Event()

    def between():
        if not waited.is_set():
            assert script.gone.wait(PATIENT_S), "the attempt that was given up was ended at the server"
            time.sleep(0.3)  # longer than an attempt may take
            waited.set()
            script.gate.set()

    service = Service("hotel", policy=pipeline(deadline(PATIENT_S), retry(500, QUICK, budget=False), timeout(0.1)))
    assert listen(service, between=between) == ([b"one", b"two"], None)
    assert service.numbers().attempts >= 2


def test_what_the_policy_allows_is_not_the_streams_own_timeout_but_the_callers_deadline_is(script, listen):
    service = Service("hotel", policy=pipeline(deadline(PATIENT_S), timeout(PATIENT_S / 2)))
    assert listen(service) == ([b"one", b"two"], None)
    with deadline(2 * PATIENT_S):
        assert listen(service) == ([b"one", b"two"], None)
    (_, _, without), (_, _, within) = script.seen
    assert without is None or without > 3e7  # gRPC's way to say: none
    assert PATIENT_S < within <= 2 * PATIENT_S + 1.0  # gRPC sends three digits, rounded up


def test_an_opening_that_is_cut_off_says_so(script, listen):
    script.scripts = [["hang"]] * 2
    service = Service("hotel", policy=pipeline(retry(2, QUICK, budget=False), timeout(0.1)))
    heard, error = listen(service)
    assert heard == []
    assert isinstance(error, AttemptTimeoutError)
    assert (error.by, attempts_made(error), service.numbers().attempts) == ("timeout", 2, 2)


def test_an_impatient_caller_does_not_open_the_breaker(script, listen):
    script.scripts = [["hang"]] * 4
    service = Service("hotel", policy=pipeline(retry(2, QUICK, budget=False), breaker(minimum=1)))
    for _ in range(4):
        with deadline(0.05):
            heard, error = listen(service)
        assert heard == []
        assert isinstance(error, DeadlineError) or error.code() is Code.DEADLINE_EXCEEDED
    assert service.policy.policies[1].state == "closed"
    assert service.numbers().in_flight == 0


def test_streams_that_wait_for_something_to_happen_are_left_out(script, listen):
    service = Service("hotel", policy=retry(3, QUICK, budget=False))
    script.scripts = [[Code.UNAVAILABLE]]
    heard, error = listen(service, streams=(SELL,))
    assert (heard, error.code(), len(script.seen)) == ([], Code.UNAVAILABLE, 1)
    assert service.numbers().calls == 0


def test_what_is_opened_is_a_call_of_grpc(script):
    script.scripts = [[Code.UNAVAILABLE], [b"one", "gate"]]
    service = Service("hotel", policy=retry(2, QUICK, budget=False))
    with grpc.insecure_channel(f"127.0.0.1:{script.port}", options=OPTIONS) as plain:
        call = grpc.intercept_channel(plain, Interceptor(service, idempotent=True)).unary_stream(LIST)(b"request")
        assert isinstance(call, grpc.Call)
        assert call.is_active()
        assert not call.done()
        assert next(call) == b"one"
        call.cancel()
        with pytest.raises(grpc.RpcError) as failure:
            next(call)
        assert failure.value.code() is call.code() is Code.CANCELLED


def test_what_is_opened_is_a_call_of_grpc_aio(script):
    script.scripts = [[Code.UNAVAILABLE]]
    service = Service("hotel", policy=retry(2, QUICK, budget=False))

    async def main():
        async with grpc.aio.insecure_channel(f"127.0.0.1:{script.port}", options=OPTIONS,
                                             interceptors=async_interceptors(service, idempotent=True)) as channel:
            call = channel.unary_stream(LIST)(b"request")
            assert [await call.read(), await call.read(), await call.read()] == [b"one", b"two", grpc.aio.EOF]
            assert (await call.code(), await call.details(), call.done()) == (Code.OK, "", True)

    asyncio.run(main())


def test_who_stops_waiting_for_the_first_message_leaves_nothing_behind(script):
    script.scripts = [["hang"]]
    service = Service("hotel", policy=pipeline(deadline(PATIENT_S), retry(2, QUICK, budget=False), breaker(minimum=1), timeout(PATIENT_S)))

    async def main():
        async with grpc.aio.insecure_channel(f"127.0.0.1:{script.port}", options=OPTIONS,
                                             interceptors=async_interceptors(service, idempotent=True)) as channel:
            reading = asyncio.create_task(channel.unary_stream(LIST)(b"request").read())
            assert await asyncio.to_thread(script.arrived.wait, PATIENT_S)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await asyncio.to_thread(script.gone.wait, PATIENT_S)

    asyncio.run(main())
    assert (service.numbers().in_flight, service.numbers().attempts) == (0, 1)
    assert service.policy.policies[2].state == "closed"

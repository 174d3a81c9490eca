"""gRPC through a Service, against a real server on loopback: the sync client and grpc.aio."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio
import pytest

from live.test_httpx import QUICK
from yaoki import effect
from yaoki.errors import AttemptTimeoutError, BreakerOpenError
from yaoki.integrations.grpc import OPTIONS, AsyncInterceptor, Interceptor, async_interceptors
from yaoki.policies import attempts_made, breaker, classify, deadline, nothing_happened, pipeline, retry, timeout
from yaoki.service import Service

pytestmark = pytest.mark.live

FIND, BOOK = "/hotel.Hotel/Find", "/hotel.Hotel/Book"
Code = grpc.StatusCode


class Script(grpc.GenericRpcHandler):
    """Answers with the next of a list: bytes, a code, a pair of code and trailing metadata, or "slow"."""

    def __init__(self):
        self.answers, self.seen = [], []
        self.server = grpc.server(ThreadPoolExecutor(4), handlers=[self])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request, context):
        self.seen.append((request, dict(context.invocation_metadata()), context.time_remaining()))
        answer = self.answers.pop(0) if self.answers else b"ok"
        if answer == "slow":
            while context.is_active() and context.time_remaining() > -1:
                if gate.wait(0.02):
                    break
            return b"late"
        if isinstance(answer, bytes):
            return answer
        code, trailing = answer if isinstance(answer, tuple) else (answer, ())
        context.set_trailing_metadata(trailing)
        context.abort(code, "as told")

    def close(self):
        self.server.stop(None).wait(5)


gate = threading.Event()


@pytest.fixture
def script():
    gate.clear()
    made = Script()
    yield made
    gate.set()
    made.close()


def by_sync(port, service, method, idempotent, settings):
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as plain:
        channel = grpc.intercept_channel(plain, Interceptor(service, idempotent=idempotent))
        return channel.unary_unary(method)(b"request", **settings)


def by_aio(port, service, method, idempotent, settings):
    async def main():
        interceptors = [AsyncInterceptor(service, idempotent=idempotent)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS, interceptors=interceptors) as channel:
            return await channel.unary_unary(method)(b"request", **settings)

    return asyncio.run(main())


@pytest.fixture(params=["sync", "aio"])
def call(request, script):
    made = by_sync if request.param == "sync" else by_aio
    return lambda service, method=FIND, *, idempotent=(FIND,), port=None, **settings: made(port or script.port, service, method, idempotent, settings)


def test_unavailable_is_repeated_for_methods_that_may_happen_twice_only(script, call):
    script.answers = [Code.UNAVAILABLE, Code.UNAVAILABLE, b"found"]
    assert call(Service("hotel", policy=retry(3, QUICK, budget=False))) == b"found"
    assert len(script.seen) == 3
    script.answers = [Code.UNAVAILABLE, b"booked"]
    with pytest.raises(grpc.RpcError) as failure:
        call(Service("hotel", policy=retry(3, QUICK, budget=False)), BOOK)
    assert failure.value.code() is Code.UNAVAILABLE
    assert not nothing_happened(failure.value)
    assert len(script.seen) == 4


def test_other_codes_are_the_answer(script, call):
    for code in (Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.DEADLINE_EXCEEDED, Code.INTERNAL):
        script.answers, script.seen = [code], []
        with pytest.raises(grpc.RpcError) as failure:
            call(Service("hotel", policy=retry(3, QUICK, budget=False)))
        assert failure.value.code() is code
        assert len(script.seen) == 1


def test_grpc_does_not_retry_by_itself(script, call):
    script.answers = [Code.UNAVAILABLE] * 5
    with pytest.raises(grpc.RpcError):
        call(Service("hotel"))
    assert len(script.seen) == 1


def test_push_back_says_when_or_never(script, call):
    script.answers = [(Code.RESOURCE_EXHAUSTED, (("grpc-retry-pushback-ms", "1"),)), b"found"]
    assert call(Service("hotel", policy=retry(3, QUICK, budget=False))) == b"found"
    script.answers = [(Code.UNAVAILABLE, (("grpc-retry-pushback-ms", "-1"),)), b"found"]
    with pytest.raises(grpc.RpcError):
        call(Service("hotel", policy=retry(3, QUICK, budget=False)))


def test_in_a_step_the_key_is_the_same_on_every_attempt(script, call):
    script.answers = [Code.UNAVAILABLE, b"booked"]
    token = effect.current.set(effect.Effect("trip-42", "book-trip", "hotel", traceparent="00-1-2-01"))
    try:
        call(Service("hotel", policy=retry(3, QUICK, budget=False)), BOOK, idempotent=True, metadata=(("own", "1"),))
    finally:
        effect.current.reset(token)
    assert [metadata["idempotency-key"] for _, metadata, _ in script.seen] == ["trip-42/hotel"] * 2
    assert {(metadata["traceparent"], metadata["own"]) for _, metadata, _ in script.seen} == {("00-1-2-01", "1")}


def test_what_remains_of_the_deadline_travels(script, call):
    call(Service("hotel", policy=deadline(100)))
    assert 50 < script.seen[0][2] < 102
    call(Service("hotel", policy=deadline(100)), timeout=40.0)
    assert 10 < script.seen[1][2] < 41.5  # gRPC rounds it up


def test_a_slow_server_is_cut_off(script, call):
    script.answers = ["slow"]
    with pytest.raises((AttemptTimeoutError, grpc.RpcError)) as failure:
        call(Service("hotel", policy=pipeline(deadline(50), timeout(0.1))))
    assert not nothing_happened(failure.value)


def test_an_attempt_that_ran_out_of_its_own_time_is_repeated(script, call):
    """Not what gRPC calls DEADLINE_EXCEEDED: that is the end of the whole call, and this only of one attempt."""
    script.answers = ["slow"] * 2
    service = Service("hotel", policy=pipeline(deadline(30), retry(2, QUICK, budget=False), timeout(0.1)))
    with pytest.raises((AttemptTimeoutError, grpc.RpcError)) as failure:
        call(service)
    assert isinstance(failure.value, AttemptTimeoutError) or failure.value.code() is Code.DEADLINE_EXCEEDED
    assert (service.numbers().attempts, attempts_made(failure.value)) == (2, 2)
    assert "2 attempts (AttemptTimeoutError, AttemptTimeoutError)" in "".join(failure.value.__notes__)


def test_the_callers_own_timeout_is_the_end_of_the_call(script, call):
    script.answers = ["slow"]
    service = Service("hotel", policy=pipeline(deadline(30), retry(2, QUICK, budget=False), timeout(20)))
    with pytest.raises(grpc.RpcError) as failure:
        call(service, timeout=0.1)
    assert failure.value.code() is Code.DEADLINE_EXCEEDED
    assert service.numbers().attempts == 1


def test_an_impatient_caller_does_not_open_the_breaker(script, call):
    script.answers = ["slow"] * 3
    service = Service("hotel", policy=breaker(minimum=1))
    for _ in range(3):
        with deadline(0.05), pytest.raises(grpc.RpcError) as failure:
            call(service)
        assert failure.value.code() is Code.DEADLINE_EXCEEDED
    assert service.policy.policies[0].state == "closed"


def test_a_repetition_says_how_many_there_were_before_it(script, call):
    script.answers = [Code.UNAVAILABLE, Code.UNAVAILABLE, b"found"]
    call(Service("hotel", policy=retry(3, QUICK, budget=False)))
    assert [metadata.get("grpc-previous-rpc-attempts") for _, metadata, _ in script.seen] == [None, "1", "2"]


def test_failures_open_the_breaker(script, call):
    service = Service("hotel", policy=breaker(minimum=3))
    script.answers = [Code.NOT_FOUND] * 3 + [Code.UNAVAILABLE] * 5
    for _ in range(6):
        with pytest.raises(grpc.RpcError):
            call(service)
    with pytest.raises(BreakerOpenError):
        for _ in range(3):
            try:
                call(service)
            except grpc.RpcError:
                pass


def test_a_server_that_is_not_there_is_classified(call):
    with pytest.raises(grpc.RpcError) as failure:
        call(Service("hotel", policy=retry(2, QUICK, budget=False)), port=1, timeout=50.0)
    assert classify(failure.value).kind in ("safe", "ambiguous")


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Kinds(grpc.GenericRpcHandler):
    """A method of each kind, which answers with what it was called with."""

    def __init__(self):
        self.seen = []

    def service(self, details):
        kind = details.method.rpartition("/")[2]

        def answer(request, context):
            sent = b"".join(request) if kind.startswith("stream") else request
            self.seen.append((kind, sent, dict(context.invocation_metadata()), context.time_remaining()))
            return iter([b"one", b"two"]) if kind.endswith("stream") else b"one"

        return getattr(grpc, f"{kind}_rpc_method_handler")(answer)


def kinds_by_sync(port, service, kind):
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as plain:
        method = getattr(grpc.intercept_channel(plain, Interceptor(service)), kind)(f"/hotel.Hotel/{kind}")
        answer = method(iter([b"a", b"b"]) if kind.startswith("stream") else b"ab")
        return list(answer) if kind.endswith("stream") else [answer]


def kinds_by_aio(port, service, kind):
    async def main():
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS, interceptors=async_interceptors(service)) as channel:
            method = getattr(channel, kind)(f"/hotel.Hotel/{kind}")
            answer = method(iter([b"a", b"b"]) if kind.startswith("stream") else b"ab")
            return [each async for each in answer] if kind.endswith("stream") else [await answer]

    return asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", [kinds_by_sync, kinds_by_aio])
def test_every_kind_of_method_gets_the_deadline_and_the_metadata(call, kind):
    handlers = Kinds()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handlers])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    token = effect.current.set(effect.Effect("trip-42", "book-trip", "hotel", traceparent="00-1-2-01"))
    try:
        with deadline(100):
            assert call(port, Service("hotel"), kind) == ([b"one", b"two"] if kind.endswith("stream") else [b"one"])
    finally:
        effect.current.reset(token)
        server.stop(None).wait(5)
    ((name, sent, metadata, left_s),) = handlers.seen
    assert (name, sent) == (kind, b"ab")
    assert (metadata["idempotency-key"], metadata["traceparent"]) == ("trip-42/hotel", "00-1-2-01")
    assert 10 < left_s < 100.5

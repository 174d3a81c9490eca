"""What a gRPC caller has left bounds what its handler calls: all four kinds of method, a sync server and grpc.aio, on loopback."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio
import pytest

from yaoki.integrations.grpc_server import AsyncDeadlines, Deadlines
from yaoki.policies import remaining

pytestmark = pytest.mark.live

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def say() -> bytes:
    return str(remaining()).encode()


def sync_handlers(details):
    kind = details.method.rpartition("/")[2]
    if kind.endswith("_stream"):
        def stream(request, context):
            yield say()
            yield say()

        return getattr(grpc, f"{kind}_rpc_method_handler")(stream)
    if kind in KINDS:
        return getattr(grpc, f"{kind}_rpc_method_handler")(lambda request, context: say())
    return None


def aio_handlers(details):
    kind = details.method.rpartition("/")[2]
    if kind.endswith("_stream"):
        async def stream(request, context):
            yield say()
            yield say()

        return getattr(grpc, f"{kind}_rpc_method_handler")(stream)

    async def answer(request, context):
        return say()

    return getattr(grpc, f"{kind}_rpc_method_handler")(answer) if kind in KINDS else None


class Handlers(grpc.GenericRpcHandler):
    def __init__(self, find):
        self._find = find

    def service(self, details):
        return self._find(details)


def ask(port: int, kind: str, limit_s: float | None) -> list[float]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = iter([b"a"]) if kind.startswith("stream_") else b"a"
        found = getattr(channel, kind)(f"/x.X/{kind}")(request, timeout=limit_s)
        return [float(each) for each in (found if kind.endswith("_stream") else [found])]


def with_sync_server(interceptor, work):
    server = grpc.server(ThreadPoolExecutor(2), handlers=[Handlers(sync_handlers)], interceptors=[interceptor])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        return work(port)
    finally:
        server.stop(None).wait(60)


def with_aio_server(interceptor, work):
    async def main():
        server = grpc.aio.server(interceptors=[interceptor])
        server.add_generic_rpc_handlers([Handlers(aio_handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            return await asyncio.to_thread(work, port)
        finally:
            await server.stop(None)

    return asyncio.run(main())


@pytest.fixture(params=[(with_sync_server, Deadlines), (with_aio_server, AsyncDeadlines)], ids=["sync", "aio"])
def served(request):
    serve, make = request.param
    return lambda work, **settings: serve(make(**settings), work)


@pytest.mark.parametrize("kind", KINDS)
def test_the_callers_deadline_bounds_the_handler(served, kind):
    told = served(lambda port: ask(port, kind, 100.0))
    assert told
    assert all(10.0 < left <= 102.0 for left in told)  # gRPC sends three digits, rounded up: 100 s may become 101


def test_without_one_the_default_counts_and_without_that_nothing(served):
    assert served(lambda port: ask(port, "unary_unary", None)) == [float("inf")]
    told = served(lambda port: ask(port, "unary_stream", None), default=100.0)
    assert len(told) == 2
    assert all(10.0 < left <= 100.0 for left in told)


def test_what_nobody_waits_for_any_more_is_not_begun(served):
    def work(port):
        with pytest.raises(grpc.RpcError) as failure:
            ask(port, "unary_unary", 100.0)
        return failure.value

    refused = served(work, least=300.0)
    assert refused.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "not carried out" in refused.details()


def test_an_unknown_method_stays_unknown(served):
    def work(port):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as failure:
            channel.unary_unary("/x.X/nothing")(b"", timeout=100)
        return failure.value

    assert served(work).code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_threads_of_the_server_are_left_as_they_were():
    """One thread serves both: the first call's deadline is not the second's."""
    def work(port):
        ask(port, "unary_stream", 100.0)
        time.sleep(0.05)
        return ask(port, "unary_unary", None)

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Handlers(sync_handlers)], interceptors=[Deadlines()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert work(port) == [float("inf")]
    finally:
        server.stop(None).wait(60)

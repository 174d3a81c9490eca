"""The server middleware under real servers on loopback: uvicorn for ASGI, the standard library's for WSGI."""

from __future__ import annotations

import asyncio
import contextlib
import socketserver
import threading
from collections import Counter
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import httpx
import pytest
import uvicorn

from yaoki.integrations import asgi, wsgi
from yaoki.integrations.httpx import async_client
from yaoki.policies import backoff, deadline, pipeline, remaining, retry
from yaoki.service import Service

pytestmark = pytest.mark.live


@contextlib.asynccontextmanager
async def uvicorn_with(app):
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error", ws="none"))
    serving = asyncio.ensure_future(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


async def test_an_asgi_server_sheds_what_it_cannot_bear_and_the_client_understands():
    busy, most, let_go = [], [], asyncio.Event()

    async def app(scope, receive, send):
        busy.append(1)
        most.append(len(busy))
        await let_go.wait()
        busy.pop()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    guarded = asgi.Deadlines(asgi.LoadShedding(app, limit=2, queue=2, max_wait=100.0, target=100.0))
    async with uvicorn_with(guarded) as url, httpx.AsyncClient(base_url=url, timeout=100) as client:
        asked = [asyncio.create_task(client.get("/")) for _ in range(20)]
        async with asyncio.timeout(100):
            while sum(each.done() for each in asked) < 16:  # noqa: ASYNC110  the others wait
                await asyncio.sleep(0.005)
        let_go.set()
        statuses = Counter(reply.status_code for reply in await asyncio.gather(*asked))
        assert statuses == {503: 16, 200: 4}, "two are served, and two wait"
        assert max(most) == 2
        service = Service("hotel", policy=pipeline(deadline(100), retry(20, backoff.exponential(0.02), budget=False)))
        async with async_client(service, base_url=url, timeout=100) as patient:
            # A refusal says that nothing was done, so even a POST is repeated. (Retry-After is a second: two rounds.)
            replies = await asyncio.gather(*(patient.post("/") for _ in range(6)))
        assert {reply.status_code for reply in replies} == {200}


async def test_a_deadline_crosses_two_processes_worth_of_hops():
    seen = []

    async def inner(scope, receive, send):
        seen.append(remaining())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async with uvicorn_with(asgi.Deadlines(inner)) as inner_url, async_client(Service("inner"), base_url=inner_url) as to_inner:

        async def outer(scope, receive, send):
            reply = await to_inner.get("/")
            await send({"type": "http.response.start", "status": reply.status_code, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async with uvicorn_with(asgi.Deadlines(outer)) as outer_url, httpx.AsyncClient(timeout=100) as client:
            assert (await client.get(outer_url, headers={"x-yaoki-timeout-ms": "60000"})).status_code == 200
            late = await client.get(outer_url, headers={"x-yaoki-timeout-ms": "2"})
    assert 0 < seen[0] <= 60
    assert len(seen) == 1
    assert (late.status_code, late.json()["code"]) == (504, "YK-1103")


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


class Threaded(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


def test_a_wsgi_server_sheds_what_it_cannot_bear():
    entered, let_go = threading.Semaphore(0), threading.Event()

    def app(environ, start_response):
        entered.release()
        assert let_go.wait(100)
        start_response("200 OK", [("content-length", "2")])
        return [b"ok"]

    guarded = wsgi.Deadlines(wsgi.LoadShedding(app, limit=1, queue=0))
    with make_server("127.0.0.1", 0, guarded, server_class=Threaded, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/"
        first = []
        caller = threading.Thread(target=lambda: first.append(httpx.get(url, timeout=100).status_code))
        caller.start()
        assert entered.acquire(timeout=100)
        refused = httpx.get(url, timeout=100)
        assert (refused.status_code, refused.json()["retryable"], refused.headers["retry-after"]) == (503, True, "1")
        assert httpx.get(url, headers={"x-yaoki-timeout-ms": "1"}, timeout=100).status_code == 504
        let_go.set()
        caller.join(100)
        assert first == [200]
        assert httpx.get(url, timeout=100).status_code == 200
        server.shutdown()
        thread.join(100)

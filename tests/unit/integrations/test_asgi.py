"""ASGI middleware on virtual time: deadlines come in, overload is shed, nothing is lost when a request is cancelled."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtual_time import Clock, run
from yaoki import events
from yaoki.errors import ConfigError
from yaoki.integrations.asgi import Deadlines, LoadShedding
from yaoki.integrations.serving import left_s, urgency
from yaoki.policies import remaining
from yaoki.policies.gradient import Gradient2


async def ask(app, path="/", **headers):
    """One request. Returns (status, headers, body)."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "method": "GET",
             "headers": [(name.replace("_", "-").encode(), str(value).encode()) for name, value in headers.items()]}
    await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(each.get("body", b"") for each in sent[1:])


def server(takes_s=0.1, seen=None):
    async def app(scope, receive, send):
        if seen is not None:
            seen.append(remaining())
        await asyncio.sleep(takes_s)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


@pytest.mark.parametrize(("headers", "left"), [
    ({"x_yaoki_timeout_ms": 1500}, 1.5), ({"grpc_timeout": "2S"}, 2.0), ({"x_envoy_expected_rq_timeout_ms": 250}, 0.25),
    ({"x_yaoki_timeout_ms": "soon"}, float("inf")), ({}, float("inf")), ({"x_yaoki_timeout_ms": "soon", "grpc_timeout": "50m"}, 0.05),
])
def test_what_the_caller_has_left_becomes_the_ambient_deadline(headers, left):
    seen = []

    async def main():
        status, _, _ = await ask(Deadlines(server(seen=seen)), **headers)
        assert status == 200
        assert remaining() == float("inf")  # and ends with the request

    run(main())
    assert seen == [pytest.approx(left)]


def test_a_default_bounds_those_who_do_not_say():
    seen = []
    run(ask(Deadlines(server(seen=seen), default=3)))
    assert seen == [pytest.approx(3)]


def test_expired_work_is_refused_and_says_that_nothing_was_done():
    seen = []
    status, headers, body = run(ask(Deadlines(server(seen=seen)), x_yaoki_timeout_ms=0))
    assert (status, headers[b"content-type"]) == (504, b"application/problem+json")
    assert json.loads(body) | {"code": "YK-1103", "retryable": False, "status": 504} == json.loads(body)
    assert seen == []


def test_beyond_the_limit_and_the_queue_requests_are_refused_with_a_problem():
    seen = []

    async def main():
        app = LoadShedding(server(), limit=2, queue=3)
        return await asyncio.gather(*(ask(app) for _ in range(8)))

    with events.listen(seen.append):
        answers = run(main())
    assert [status for status, _, _ in answers].count(200) >= 4
    refused = [(headers, json.loads(body)) for status, headers, body in answers if status == 503]
    assert len(refused) >= 3
    assert all(headers[b"retry-after"] == b"1" and body["code"] == "YK-1102" and body["retryable"] for headers, body in refused)
    assert {(each.policy, each.service) for each in seen} == {("shed", "server")}


def test_nobody_waits_longer_than_allowed():
    clock = Clock()

    async def main():
        app = LoadShedding(server(takes_s=10), limit=1, queue=10, max_wait=0.5, target=0.5)
        first = asyncio.ensure_future(ask(app))
        await asyncio.sleep(0.01)
        began = clock.now
        status, _, _ = await ask(app)
        assert status == 503
        assert clock.now - began == pytest.approx(0.5, abs=0.01)
        await first

    run(main(), clock=clock)


def test_more_important_requests_go_first():
    order = []

    async def app(scope, receive, send):
        order.append(scope["path"])
        await server()(scope, receive, send)

    async def main():
        guarded = LoadShedding(app, limit=1, max_wait=5, target=5)
        await asyncio.gather(ask(guarded, "/0"), ask(guarded, "/batch", priority="u=7, i"), ask(guarded, "/page"),
                             ask(guarded, "/pay", priority="u=0"))
        order.clear()
        guarded = LoadShedding(app, limit=1, max_wait=5, target=5, priority=lambda scope: len(scope["path"]))
        await asyncio.gather(ask(guarded, "/0"), ask(guarded, "/long", priority="u=0"), ask(guarded, "/s"))

    run(main())
    assert order == ["/0", "/s", "/long"]


def test_health_checks_are_let_through():
    async def main():
        app = LoadShedding(server(), limit=1, queue=0, exempt=["/health"])
        answers = await asyncio.gather(ask(app), ask(app), ask(app, "/health"))
        assert [status for status, _, _ in answers] == [200, 503, 200]

    run(main())


def test_work_that_cannot_be_done_in_time_is_refused_at_once():
    async def main():
        app = Deadlines(LoadShedding(server(takes_s=0.2), limit=1))
        for _ in range(100):
            await ask(app)
        clock = asyncio.get_running_loop().time
        began = clock()
        status, _, body = await ask(app, x_yaoki_timeout_ms=100)
        assert (status, json.loads(body)["code"]) == (504, "YK-1103")
        assert clock() == began

    run(main())


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 1.0)), min_size=1, max_size=12))
def test_cancellations_at_any_moment_leave_the_gate_as_found(plan):
    app = LoadShedding(server(), limit=2, queue=4, max_wait=0.3, target=0.1)

    async def one(arrives_s, cancel_s):
        await asyncio.sleep(arrives_s)
        task = asyncio.ensure_future(ask(app))
        await asyncio.sleep(cancel_s)
        task.cancel()
        await asyncio.wait([task])

    async def main():
        await asyncio.gather(*(one(*each) for each in plan))
        await asyncio.sleep(2)
        assert (app.gate.shedder.running, app.gate.shedder.waiting) == (0, 0)

    run(main())


def test_an_application_that_fails_gives_its_place_back():
    async def app(scope, receive, send):
        raise ValueError("a bug")

    async def main():
        guarded = LoadShedding(app, limit=1, queue=0)
        for _ in range(3):
            with pytest.raises(ValueError, match="bug"):
                await ask(guarded)

    run(main())


def test_the_limit_can_be_found_by_measuring():
    async def main():
        busy = []

        async def app(scope, receive, send):
            busy.append(1)
            await asyncio.sleep(0.01 * max(1, len(busy) - 3))  # bears four at once
            busy.pop()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

        guarded = LoadShedding(app, limit=Gradient2(initial=50), max_wait=0.1)
        for _ in range(300):
            await asyncio.gather(*(ask(guarded) for _ in range(30)))
        return guarded.gate.limit

    assert run(main()) < 30


def test_other_scopes_pass():
    passed = []

    async def app(scope, receive, send):
        passed.append(scope["type"])

    async def main():
        for kind in ("lifespan", "websocket"):
            await Deadlines(LoadShedding(app))({"type": kind}, None, None)

    run(main())
    assert passed == ["lifespan", "websocket"]


@pytest.mark.parametrize(("text", "level"), [("u=0", 0), ("i, u=7", 7), ("u=9", 3), ("", 3), ("u", 3), ("u=-1", 3), ("x=1", 3)])
def test_urgency_is_read_as_the_rfc_says(text, level):
    assert urgency({"priority": text}.get) == level


@given(st.text(max_size=20))
def test_no_header_breaks_anything(text):
    assert 0 <= urgency(lambda _: text) <= 7
    found = left_s(lambda _: text)
    assert found is None or found >= 0


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ConfigError):
        LoadShedding(server(), limit=0)

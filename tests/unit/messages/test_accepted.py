"""The 202 endpoint: over ASGI and WSGI, for handlers and for sagas."""

from __future__ import annotations

import asyncio
import io

import httpx
import msgspec
import pytest

import yaoki
from contracts.messages_world import Placed, Reserved, service, until
from yaoki.errors import ConfigError, DeclinedError
from yaoki.messages import Message, Retries
from yaoki.messages.accepted import HandlerWork, SagaWork, accepted
from yaoki.messages.accepted.work import progress
from yaoki.saga.define import Saga


class Shop:
    """A service whose handler waits, reports, fails or answers, as told."""

    def __init__(self, tmp_path) -> None:
        self.app = service(f"sqlite:///{tmp_path}/shop.db")
        self.gate = asyncio.Event()
        self.calls = 0

        @self.app.on(Placed, retries=Retries(attempts=1))
        async def take(placed: Placed, message: Message) -> Reserved:
            self.calls += 1
            if placed.n < 0:
                raise DeclinedError("sold out")
            if placed.n == 7:
                await progress(self.app, message, {"done": 0.5})
                await self.gate.wait()
            return Reserved(placed.n)

    def client(self, **settings) -> httpx.AsyncClient:
        endpoint = accepted(HandlerWork(self.app, Placed, handler="take", **settings.pop("work", {})), path="/orders", **settings)
        return httpx.AsyncClient(transport=httpx.ASGITransport(endpoint), base_url="http://shop")


@pytest.fixture
async def shop(tmp_path):
    made = Shop(tmp_path)
    async with made.app:
        yield made
        made.gate.set()


async def ended(client: httpx.AsyncClient, location: str) -> dict:
    for _ in range(10_000):
        status = (await client.get(location)).json()
        if status["state"] in {"succeeded", "failed", "lost"}:
            return status
        await asyncio.sleep(0.01)
    raise AssertionError(status)


async def test_work_is_accepted_done_and_its_result_shown(shop):
    async with shop.client() as client:
        answer = await client.post("/orders", json={"n": 1})
        assert answer.status_code == 202
        assert answer.headers["retry-after"]
        status = await ended(client, answer.headers["location"])
        assert (status["state"], status["result"]) == ("succeeded", {"n": 1})


async def test_work_that_ends_while_it_is_looked_at_is_shown_with_its_result(shop, monkeypatch):
    inner = shop.app.store.starting_with

    async def before_it_ended(prefix: str, *, limit: int) -> list[object]:
        await until(lambda: shop.calls)
        while not await inner(f"{prefix}.", limit=limit):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return []

    monkeypatch.setattr(shop.app.store, "starting_with", before_it_ended)
    async with shop.client() as client:
        answer = await client.post("/orders", json={"n": 1})
        status = await ended(client, answer.headers["location"])
        assert (status["state"], status["result"]) == ("succeeded", {"n": 1})


async def test_the_same_key_and_body_is_the_same_work_and_another_body_is_refused(shop):
    async with shop.client() as client:
        key = {"Idempotency-Key": "order-1"}
        first, again = await asyncio.gather(*(client.post("/orders", json={"n": 1}, headers=key) for _ in range(2)))
        assert first.headers["location"] == again.headers["location"]
        await ended(client, first.headers["location"])
        after = await client.post("/orders", content=b'{ "n" : 1 }', headers={**key, "content-type": "application/json"})
        assert (after.status_code, after.json()["state"]) == (202, "succeeded")
        other = await client.post("/orders", json={"n": 2}, headers=key)
        assert (other.status_code, other.headers["content-type"]) == (422, "application/problem+json")
    assert shop.calls == 1


async def test_scopes_keep_the_keys_of_tenants_apart(shop):
    async with shop.client(scope=lambda headers: headers.get("tenant", "")) as client:
        answers = [await client.post("/orders", json={"n": n}, headers={"Idempotency-Key": "k", "Tenant": f"t{n}"}) for n in (1, 2)]
        assert [each.status_code for each in answers] == [202, 202]
        assert answers[0].headers["location"] != answers[1].headers["location"]


async def test_what_is_under_way_can_be_refused_waited_for_and_followed(shop, monkeypatch):
    inner, waiting = HandlerWork.wait_changed, []

    async def wait_changed(work: HandlerWork, timeout_s: float) -> None:
        waiting.append(work)
        await inner(work, timeout_s)

    async with shop.client(under_way="conflict") as client:
        key = {"Idempotency-Key": "slow"}
        answer = await client.post("/orders", json={"n": 7}, headers=key)
        location = answer.headers["location"]
        await until(lambda: shop.calls)
        assert (await client.post("/orders", json={"n": 7}, headers=key)).status_code == 409
        status = await ended_as(client, location, "running")
        assert status["progress"] == {"done": 0.5}
        monkeypatch.setattr(HandlerWork, "wait_changed", wait_changed)
        follower = asyncio.create_task(client.get(f"{location}/events"))
        await until(lambda: waiting)  # it has been told that the work is running
        waiter = asyncio.create_task(client.get(location, headers={"Prefer": "wait=60"}))
        told = len(waiting)
        await until(lambda: len(waiting) > told + 1)
        assert not waiter.done()
        shop.gate.set()
        assert (await waiter).json()["state"] == "succeeded"
        text = (await follower).text
        assert text.index("event: running") < text.index("event: succeeded")
        assert (await follower).headers["content-type"] == "text/event-stream"


async def test_failed_and_lost_work_is_said(shop):
    async def says_lost(_id: str) -> bool:
        return True

    async with shop.client(work={"is_lost": says_lost}) as client:
        answer = await client.post("/orders", json={"n": -1})
        status = await ended(client, answer.headers["location"])
        assert status["state"] in {"failed", "lost"}
        failed = await ended_as(client, answer.headers["location"], "failed")
        assert failed["error"] == "DeclinedError: sold out"
        slow = await client.post("/orders", json={"n": 7})
        assert (await client.get(slow.headers["location"])).json()["state"] == "lost"


async def ended_as(client, location: str, state: str) -> dict:
    for _ in range(10_000):
        status = (await client.get(location)).json()
        if status["state"] == state:
            return status
        await asyncio.sleep(0.01)
    raise AssertionError(status)


@pytest.mark.parametrize(("wrong", "code"), [
    ({"content": b"x" * 2000, "headers": {"content-type": "application/json"}}, 413),
    ({"content": b"n=1", "headers": {"content-type": "text/plain"}}, 415),
    ({"content": b'{"n":"x"}', "headers": {"content-type": "application/json"}}, 400),
    ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
    ({"json": {"n": 1}, "headers": {"Idempotency-Key": "with space"}}, 400),
])
async def test_bad_requests_get_a_problem_and_store_nothing(shop, wrong, code):
    async with shop.client(max_body=1000) as client:
        answer = await client.post("/orders", **wrong)
        assert (answer.status_code, answer.json()["status"]) == (code, code)
        assert (await client.get("/orders/unknown")).status_code == 404
        assert (await client.put("/orders/unknown")).status_code == 405
        assert (await client.get("/orders")).status_code == 405
    assert shop.calls == 0


async def test_when_work_waits_too_long_no_more_is_taken_in(shop):
    async with shop.client(max_age=5.0) as client:
        shop.app.handlers  # noqa: B018
        work = HandlerWork(shop.app, Placed, handler="take")

        async def old() -> float:
            return 30.0

        work.age_s = old
        endpoint = accepted(work, path="/orders", max_age=5.0)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(endpoint), base_url="http://shop") as shed:
            answer = await shed.post("/orders", json={"n": 1})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        assert (await client.post("/orders", json={"n": 1})).status_code == 202


async def test_half_a_body_is_no_work(shop):
    """What a client had said when it went may be JSON all the same."""
    said, sent = [{"type": "http.request", "body": b'{"n":1}', "more_body": True}, {"type": "http.disconnect"}], []

    async def receive() -> dict:
        return said.pop(0)

    async def send(message: dict) -> None:
        sent.append(message)

    application = accepted(HandlerWork(shop.app, Placed, handler="take"), path="/orders")
    headers = [(b"content-type", b"application/json")]
    await application({"type": "http", "method": "POST", "path": "/orders", "headers": headers}, receive, send)
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/orders", "CONTENT_LENGTH": "9", "CONTENT_TYPE": "application/json",
               "wsgi.input": io.BytesIO(b'{"n":1}')}
    told: list[str] = []
    wsgi = application.wsgi(asyncio.get_running_loop())
    await asyncio.to_thread(lambda: list(wsgi(environ, lambda status, _: told.append(status))))
    assert (sent, told, await shop.app.store.starting_with("")) == ([], ["400 Bad Request"], [])


async def test_it_is_a_wsgi_application_too(shop):
    wsgi = accepted(HandlerWork(shop.app, Placed, handler="take"), path="/orders").wsgi(asyncio.get_running_loop())

    def call(method: str, path: str, body: bytes = b"") -> tuple[str, dict[str, str], bytes]:
        told: list = []
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "application/json",
                   "wsgi.input": io.BytesIO(body), "HTTP_PREFER": "wait=60"}
        chunks = b"".join(wsgi(environ, lambda status, headers: told.append((status, dict(headers)))))
        return *told[0], chunks

    status, headers, body = await asyncio.to_thread(call, "POST", "/orders", b'{"n":3}')
    assert (status, msgspec.json.decode(body)["state"]) == ("202 Accepted", "succeeded")
    status, _, body = await asyncio.to_thread(call, "GET", f"{headers['location']}/events")
    assert (status, body.count(b"event: succeeded")) == ("200 OK", 1)


async def test_one_line_turns_a_saga_into_an_endpoint(tmp_path):
    saga: Saga[Placed] = Saga("order", input=Placed)

    @saga.step(undo=None)
    async def reserve(placed: Placed) -> Reserved:
        if placed.n < 0:
            raise DeclinedError("sold out")
        return Reserved(placed.n)

    async with yaoki.open(f"sqlite:///{tmp_path}/journal.db", sagas=[saga]) as app:
        endpoint = accepted(SagaWork(app, saga), path="/orders")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(endpoint), base_url="http://shop") as client:
            key = {"Idempotency-Key": "k"}
            answer = await client.post("/orders", json={"n": 5}, headers=key)
            assert answer.status_code == 202
            assert (await ended(client, answer.headers["location"]))["result"] == {"n": 5}
            assert (await client.post("/orders", json={"n": 6}, headers=key)).status_code == 422
            undone = await client.post("/orders", json={"n": -1})
            status = await ended(client, undone.headers["location"])
            assert (status["state"], "sold out" in status["error"]) == ("failed", True)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="path"):
        accepted(None, path="orders")
    with pytest.raises(ConfigError, match="under_way"):
        accepted(None, path="/orders", under_way="maybe")

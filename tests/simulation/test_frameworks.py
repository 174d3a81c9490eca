"""One bank in every web framework people write services with, reached by host name with every client, under every fault."""

from __future__ import annotations

from typing import Annotated, Any

import django
import httpx
import litestar
import msgspec
import pytest
import requests
import urllib3
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from fastapi import FastAPI, Header
from flask import Flask
from flask import request as flask_request
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from yaoki.explore import Request, Scenario, World, explore, replay

# What the bank of this universe keeps: answers by idempotency key. Handlers of frameworks are functions of a module, so this is too.
BOOK: dict[str, dict[str, int]] = {}


def charge(key: str, amount: int) -> dict[str, int]:
    return BOOK.setdefault(key, {"charged": amount})


# ── the bank, six times ──


def fastapi_bank() -> Any:
    app = FastAPI()

    @app.post("/charges")
    async def create(body: dict[str, int], idempotency_key: Annotated[str, Header()]) -> dict[str, int]:
        return charge(idempotency_key, body["amount"])

    return app


def starlette_bank() -> Any:
    async def create(request: StarletteRequest) -> JSONResponse:
        return JSONResponse(charge(request.headers["idempotency-key"], (await request.json())["amount"]))

    return Starlette(routes=[Route("/charges", create, methods=["POST"])])


@litestar.post("/charges", status_code=200)
async def create_in_litestar(request: litestar.Request) -> dict[str, int]:
    return charge(request.headers["idempotency-key"], (await request.json())["amount"])


def litestar_bank() -> Any:
    return litestar.Litestar([create_in_litestar], logging_config=None)


def flask_bank() -> Any:
    app = Flask("bank")

    @app.post("/charges")
    def create() -> dict[str, int]:
        return charge(flask_request.headers["Idempotency-Key"], flask_request.json["amount"])

    return app


def create_in_django(request: HttpRequest) -> JsonResponse:
    return JsonResponse(charge(request.headers["Idempotency-Key"], msgspec.json.decode(request.body)["amount"]))


async def create_in_async_django(request: HttpRequest) -> JsonResponse:
    return create_in_django(request)


urlpatterns = [path("charges", create_in_django), path("async/charges", create_in_async_django)]
settings.configure(DEBUG=False, SECRET_KEY="of a test", ALLOWED_HOSTS=["*"], USE_TZ=True, MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
                   ROOT_URLCONF=__name__)
django.setup()


def plain_bank() -> Any:
    return lambda request: charge(request.header("idempotency-key"), request.json()["amount"])


BANKS = {"fastapi": fastapi_bank, "starlette": starlette_bank, "litestar": litestar_bank, "flask": flask_bank, "django wsgi": get_wsgi_application,
         "django asgi": get_asgi_application, "a function": plain_bank}

# ── the customer, five times ──

URL, KEY = "http://bank.test", {"Idempotency-Key": "order-7"}


async def with_async_httpx() -> int:
    async with httpx.AsyncClient(timeout=2) as client:
        return (await client.post(f"{URL}/charges", json={"amount": 5}, headers=KEY)).raise_for_status().json()["charged"]


def with_httpx() -> int:
    with httpx.Client(timeout=2) as client:
        return client.post(f"{URL}/charges", json={"amount": 5}, headers=KEY).raise_for_status().json()["charged"]


def with_requests() -> int:
    reply = requests.post(f"{URL}/charges", json={"amount": 5}, headers=KEY, timeout=2)
    reply.raise_for_status()
    return reply.json()["charged"]


def with_a_session() -> int:
    with requests.Session() as session:
        reply = session.post(f"{URL}/charges", json={"amount": 5}, headers=KEY, timeout=2)
        reply.raise_for_status()
        return reply.json()["charged"]


def with_urllib3() -> int:
    with urllib3.PoolManager() as pool:
        reply = pool.request("POST", f"{URL}/charges", json={"amount": 5}, headers=KEY, timeout=2.0, retries=False)
        if reply.status >= 400:
            raise urllib3.exceptions.HTTPError(f"status {reply.status}")
        return reply.json()["charged"]


CLIENTS = {"async httpx": with_async_httpx, "httpx": with_httpx, "requests": with_requests, "a session": with_a_session, "urllib3": with_urllib3}
FAILURES = (httpx.HTTPError, requests.RequestException, urllib3.exceptions.HTTPError)


def program(bank: Any, ask: Any) -> Scenario:
    """A customer who asks until there is an answer."""
    app = bank()

    def setup(world: World) -> None:
        BOOK.clear()
        world.host("bank.test", app)

    async def customer(world: World) -> int:
        while True:
            try:
                said = ask()
                return said if isinstance(said, int) else await said
            except FAILURES:
                await world.sleep(1.0)

    def charged_once(world: World) -> str:
        return "" if BOOK == {"order-7": {"charged": 5}} else f"5 was to be charged once, and the book says {BOOK}"

    return Scenario(customer, setup=setup, invariants=[charged_once], name="bank")


@pytest.mark.parametrize("bank", BANKS.values(), ids=BANKS)
def test_a_service_in_this_framework_is_explored_as_it_is(bank):
    report = explore(program(bank, with_async_httpx), faults=1)
    assert report.ok, report.text(matrix=False)
    assert set(report.matrix) == {"bank.test.POST /charges"}
    assert report.executions > 10


@pytest.mark.parametrize("ask", CLIENTS.values(), ids=CLIENTS)
@pytest.mark.parametrize("bank", [starlette_bank, get_wsgi_application], ids=["asgi", "wsgi"])
def test_this_client_is_intercepted(bank, ask):
    report = explore(program(bank, ask), faults=1, kinds=["call.reject", "call.lost_ack", "call.timeout:done", "crash.after_effect"])
    assert report.ok, report.text(matrix=False)
    assert set(report.matrix) == {"bank.test.POST /charges"}


def test_an_async_view_of_django_is_served():
    async def main() -> int:
        async with httpx.AsyncClient(timeout=2) as client:
            return (await client.post(f"{URL}/async/charges", json={"amount": 5}, headers=KEY)).json()["charged"]

    def setup(world: World) -> None:
        BOOK.clear()
        world.host("bank.test", get_asgi_application())

    assert explore(Scenario(main, setup=setup), faults=0).baseline == "returns 5"


@pytest.mark.parametrize(("fault", "status"), [("call.error", 500), ("call.throttle", 429), ("call.conflict:answer", 409)])
@pytest.mark.parametrize("ask", [with_async_httpx, with_requests, with_urllib3], ids=["httpx", "requests", "urllib3"])
def test_an_answer_that_is_a_failure_looks_like_one_to_every_client(ask, fault, status):
    scenario = Scenario(ask, setup=lambda world: world.host("bank.test", plain_bank()))
    run, _ = replay(scenario, f"yk1:bank.test.POST /charges@0={fault}")
    assert str(status) in run.answer


@pytest.mark.parametrize(("ask", "error"), [(with_async_httpx, "PoolTimeout"), (with_httpx, "PoolTimeout"), (with_requests, "ConnectionError"), (with_urllib3, "NewConnectionError")])
def test_an_exhausted_pool_looks_like_each_clients_own_error(ask, error):
    scenario = Scenario(ask, setup=lambda world: world.host("bank.test", plain_bank()))
    run, _ = replay(scenario, "yk1:bank.test.POST /charges@0=res.pool_exhausted")
    assert run.answer.startswith(f"raises {error}")


def test_what_a_framework_raises_is_a_500_and_the_world_goes_on():
    app = Starlette(routes=[Route("/charges", lambda request: 1 / 0, methods=["POST"])])
    run, _ = replay(Scenario(with_requests, setup=lambda world: world.host("bank.test", app)), "yk1:none")
    assert "500" in run.answer


def test_a_request_shows_the_host_what_was_sent():
    seen: list[Request] = []

    def setup(world: World) -> None:
        world.host("bank.test", lambda request: seen.append(request) or {"charged": 5})

    async def main() -> None:
        await with_async_httpx()
        for ask in (with_httpx, with_requests, with_a_session, with_urllib3):
            ask()

    replay(Scenario(main, setup=setup), "yk1:none")
    assert len(seen) % len(CLIENTS) == 0
    assert {(each.method, each.path, each.header("idempotency-key"), each.json()["amount"]) for each in seen} == {("POST", "/charges", "order-7", 5)}

"""The front page lives without its recommendations."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from yaoki.examples.travel.services import front, make
from yaoki.examples.travel.services.front import Recommendations, Suggestion, Suggestions, page


async def look(app: Starlette, near: str = "ATL") -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://front") as visitor:
        reply = await visitor.get("/", params={"near": near})
    await app.state.recommendations.client.aclose()
    return reply


@pytest.fixture
def app(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Starlette:
    """A front page whose recommendations come from the real service, or as the parameter says."""
    def answer(asked: httpx.Request) -> httpx.Response:
        if isinstance(request.param, Exception):
            raise request.param
        return httpx.Response(request.param, json=[])

    transport: Any = httpx.ASGITransport(make("recommend", "")) if request.param == "real" else httpx.MockTransport(answer)
    monkeypatch.setattr(front, "Recommendations", lambda url, own: Recommendations(url, own, transport))
    return make("front", "")


@pytest.mark.parametrize("app", ["real"], indirect=True)
async def test_with_recommendations_it_shows_hotels_where_one_flies_to(app: Starlette) -> None:
    reply = await look(app)
    assert (reply.status_code, reply.headers["x-degraded"]) == (200, "false")
    assert "You might like, near ATL" in reply.text
    assert "Atlanta" in reply.text
    assert "→ ATL" in reply.text


@pytest.mark.parametrize("app", [500, 503, httpx.ConnectError("away"), httpx.ReadTimeout("slow")], indirect=True, ids=str)
async def test_without_them_it_shows_its_own_favourites(app: Starlette) -> None:
    reply = await look(app)
    assert (reply.status_code, reply.headers["x-degraded"]) == (200, "true")
    assert "Our favourites" in reply.text
    assert reply.text.count("<li>") == 3


def test_what_comes_from_outside_is_escaped() -> None:
    evil = '<script>alert("x")</script>'
    flight = {"departs": f"2013-06-01T{evil}", "id": evil, "origin": evil, "dest": evil, "price": "100"}
    text = page([flight], Suggestions([Suggestion("x", evil, 1)]), evil)
    assert "<script>" not in text
    assert text.count("&lt;script&gt;") == 6

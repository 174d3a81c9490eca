"""The front page: what flies today, and what else one might like. It can live without the recommendations.

They are asked for with a fallback: when the service is away, slow or broken, the page shows the agency's own favourites and
says so (`X-Degraded: true`). One healthy call in twenty takes the fallback as well, so that it is known to work.
"""

from __future__ import annotations

import os
from html import escape

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from yaoki.examples.travel.catalogue import rows
from yaoki.policies import breaker, bulkhead, fallback, pipeline, timeout
from yaoki.service import Service

WAIT_S = 0.15  # nobody waits longer for a recommendation
SHOWN = 8
FAVOURITES = ("ORD", "LAX", "MIA")


class Suggestion(msgspec.Struct):
    id: str
    name: str
    price: int


class Suggestions(msgspec.Struct):
    hotels: list[Suggestion]
    degraded: bool = False


class Recommendations:
    """The recommendation service, as the front page calls it."""

    def __init__(self, url: str, own: list[Suggestion], transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._own = own
        self.client = httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(WAIT_S, pool=None), transport=transport,
                                        limits=httpx.Limits(max_connections=None, max_keepalive_connections=4))
        self.service = Service("recommend", idempotent=True, policy=pipeline(
            fallback(self.favourites, bulkhead=bulkhead(20), idempotent=True, share=0.05),
            breaker(failure_rate=0.8, window=5.0, minimum=10, open_for=1.0),
            bulkhead(4, queue=50, max_wait=WAIT_S),
            timeout(2 * WAIT_S)))  # the safety net behind httpx's own timeout, see docs/decisions/0002

    async def near(self, airport: str) -> Suggestions:
        found: Suggestions = await self.service.acall(self._ask, airport)
        return found

    async def _ask(self, airport: str) -> Suggestions:
        reply = await self.client.get("/recommendations", params={"near": airport})
        return Suggestions(msgspec.json.decode(reply.raise_for_status().content, type=list[Suggestion]))

    async def favourites(self, airport: str) -> Suggestions:  # noqa: ARG002  the same for all
        return Suggestions(self._own, degraded=True)


def page(flights: list[dict[str, str]], suggestions: Suggestions, near: str) -> str:
    """The page as HTML; everything that comes from outside is escaped."""
    departures = "".join(f"<tr><td>{escape(each['departs'][11:])}<td>{escape(each['id'])}<td>{escape(each['origin'])} → {escape(each['dest'])}"
                         f"<td>{int(each['price']) / 100:.2f} $</tr>" for each in flights)
    hotels = "".join(f"<li>{escape(hotel.name)} <small>{hotel.price / 100:.2f} $ a night</small></li>" for hotel in suggestions.hotels)
    title = "Our favourites" if suggestions.degraded else f"You might like, near {escape(near)}"
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Nana Korobi Travel</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem;color:#223}}h1{{color:#b02a2a}}
table{{width:100%;border-collapse:collapse}}td{{padding:.3rem .5rem;border-bottom:1px solid #ddd}}small{{color:#667}}</style>
<h1>Nana Korobi Travel</h1><p>From New York, whatever fails.</p><table>{departures}</table><h2>{title}</h2><ul>{hotels}</ul></html>"""


def make(store_url: str) -> Starlette:  # noqa: ARG001  it has no database
    flights = rows("flights")
    hotels = [row for row in rows("hotels") if row["airport"] in FAVOURITES and row["name"].startswith("Garden")]
    own = [Suggestion(row["id"], row["name"], int(row["price"])) for row in hotels]
    recommendations = Recommendations(os.environ.get("TRAVEL_RECOMMEND", "http://127.0.0.1:8105"), own)

    async def front(request: Request) -> Response:
        near = request.query_params.get("near", "ORD")[:3].upper()
        shown = [flight for flight in flights if flight["dest"] == near][:SHOWN] or flights[:SHOWN]
        suggestions = await recommendations.near(near)
        headers = {"X-Degraded": str(suggestions.degraded).lower(), "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return HTMLResponse(page(shown, suggestions, near), headers=headers)

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"ok": True})

    app = Starlette(routes=[Route("/", front), Route("/health", health)])
    app.state.recommendations = recommendations
    return app


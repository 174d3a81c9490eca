"""Recommendations: what else one might like. Nobody's trip depends on it, so it keeps nothing and may be away."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from yaoki.examples.travel.catalogue import rows

SHOWN = 3


def make(store_url: str) -> Starlette:  # noqa: ARG001  it has no database
    hotels = sorted(rows("hotels"), key=lambda row: (int(row["price"]), row["id"]))

    async def recommend(request: Request) -> JSONResponse:
        near = request.query_params.get("near", "")
        found = [hotel for hotel in hotels if not near or hotel["airport"] == near][:SHOWN]
        return JSONResponse([{"id": hotel["id"], "name": hotel["name"], "price": int(hotel["price"])} for hotel in found])

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"ok": True})

    return Starlette(routes=[Route("/recommendations", recommend), Route("/health", health)])

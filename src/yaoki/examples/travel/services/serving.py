"""What the four selling services share: a store, the participant's table in it, and how their application is put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from yaoki.examples.travel.store import Store
from yaoki.saga.participant import EffectEndpoint, Participant


class Selling:
    """One selling service on its own database."""

    def __init__(self, store_url: str, schema: str) -> None:
        self.store = Store(store_url, schema)
        self.effects = Participant()
        with self.store.transaction() as db:
            self.effects.create(db)

    def endpoint(self, do: Callable[[Any, Any, str], Any], undo: Callable[[Any, Any, str], Any], takes: type) -> EffectEndpoint:
        # threads=False: see store.py
        return EffectEndpoint(self.effects, transaction=self.store.transaction, do=do, undo=undo, type=takes, threads=False)

    def app(self, *routes: Route) -> Starlette:
        app = Starlette(routes=[*routes, Route("/health", _health)])
        app.state.store = self.store
        return app


async def _health(_: Request) -> JSONResponse:
    return JSONResponse({"ok": True})

"""See and set the circuit breakers that a fleet shares."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

import click

from yaoki.cli.frame import Exit, output
from yaoki.cli.frame.asking import user_name
from yaoki.cli.frame.durations import show_duration
from yaoki.cli.frame.options import DURATION, setting
from yaoki.cli.frame.tables import Cell

Forced = Literal["forced_open", "disabled", "metrics_only"]

if TYPE_CHECKING:
    from yaoki.policies.shared import Store, View

# An order that nobody takes back ends by itself: long enough for a night, short enough not to be forgotten for ever.
DEFAULT_TTL_S = 12 * 3600.0

COLORS = {"open": "red", "forced_open": "red", "metrics_only": "yellow", "disabled": "yellow", "closed": "green"}

store_option = setting("--store", "breakers.store")
ttl_option = click.option("--for", "ttl", type=DURATION, default=DEFAULT_TTL_S, show_default="12h", help="The order ends by itself after this.")
why_option = click.option("--why", default="", help="Said to everybody who is refused, and in the events.")


@click.group()
def command() -> None:
    """See and set the circuit breakers that a fleet shares.

    They are those that the programs share through the same store (`yaoki.policies.shared`).
    """


@command.command("list")
@store_option
def list_(*, store: str) -> Exit | None:
    """List the services that a fleet has breakers for."""
    from yaoki.policies.shared.keeper import views

    out = output()
    with _opened(store) as opened:
        found = views(opened)
    for view in found:
        out.emit(_as_data(view))
    if not found:
        out.say(f"No process shares a breaker through {_shown(store)} now.")
        return None
    out.table(("service", "state", "open at", "why"), [_row(view) for view in found])
    return Exit.FINDING if any(_state(view) != "closed" for view in found) else None


@command.command()
@click.argument("service")
@store_option
def show(*, service: str, store: str) -> None:
    """Show what each node says about a service."""
    out = output()
    with _opened(store) as opened:
        view = _view(opened, service)
    out.emit(_as_data(view))
    if view.order is None and not view.votes:
        out.say(f"no process shares a breaker of {service} through {_shown(store)} now")
        return
    out.say(f"{service}: {_state(view).replace('_', ' ')}")
    if view.order is not None:
        out.say(f"ordered by {view.order.who or 'somebody'}, for another {show_duration(view.order.left_s)}: {view.order.why or 'no reason given'}")
    out.table(("node", "its breaker", "why"), [(vote.node, _colored("open" if vote.is_open else "closed"), vote.reason) for vote in view.votes])


@command.command()
@click.argument("service")
@store_option
@ttl_option
@why_option
@click.option("--state", type=click.Choice(get_args(Forced)), default="forced_open", show_default=True,
              help="forced_open refuses every call; disabled lets all through; metrics_only only tells.")
def trip(*, service: str, store: str, ttl: float, why: str, state: Forced) -> None:
    """Order a service's breakers open, at every node."""
    from yaoki.policies.shared.keeper import give_order

    with _opened(store) as opened:
        give_order(opened, service, state, who=user_name(), why=why, ttl_s=ttl)
    out = output()
    out.emit({"service": service, "state": state, "ttl_s": ttl, "why": why})
    out.say(f"{service} is {state.replace('_', ' ')} for {show_duration(ttl)}; every node follows within its refresh (a second by default).")
    out.say(f"Take it back: yk deps reset {service}")


@command.command()
@click.argument("service")
@store_option
def reset(*, service: str, store: str) -> None:
    """Take an order back: every node decides for itself again."""
    from yaoki.policies.shared.keeper import withdraw_order

    with _opened(store) as opened:
        standing = _view(opened, service).order
        withdraw_order(opened, service)
    out = output()
    out.emit({"service": service, "withdrawn": standing is not None})
    out.say(f"{service}: the order of {standing.who or 'somebody'} is taken back." if standing else f"{service}: there was no order.")


@contextlib.contextmanager
def _opened(url: str) -> Iterator[Store]:
    """The store; what its driver raises becomes an error that says what to do."""
    from yaoki.errors import ConfigError, YaokiError
    from yaoki.policies.shared import store_at

    if not url:
        raise ConfigError("no store of shared breakers was named", do="add --store redis://..., or set breakers.store in yaoki.toml")
    try:
        store = store_at(url)
        try:
            yield store
        finally:
            store.close()
    except (YaokiError, ImportError):  # a driver that is not installed: the frame says which extra brings it
        raise
    except Exception as error:
        raise ConfigError(f"the store {_shown(url)} cannot be used: {type(error).__name__}: {error}",
                          do="check that it runs, and that the address is right") from error


def _view(store: Store, service: str) -> View:
    from yaoki.policies.shared import View
    from yaoki.policies.shared.keeper import views

    return next(iter(views(store, service)), View(service))


def _state(view: View) -> str:
    if view.order is not None:
        return view.order.state
    return "open" if any(vote.is_open for vote in view.votes) else "closed"


def _row(view: View) -> tuple[Cell | str, ...]:
    is_open = sum(vote.is_open for vote in view.votes)
    why = view.order.why if view.order else next((vote.reason for vote in view.votes if vote.is_open), "")
    return view.service, _colored(_state(view)), f"{is_open} of {len(view.votes)} nodes", why


def _colored(state: str) -> Cell:
    return Cell(state.replace("_", " "), COLORS[state])


def _as_data(view: View) -> dict[str, object]:
    return {"service": view.service, "state": _state(view), "votes": view.votes, "order": view.order}


def _shown(url: str) -> str:
    """The address without a password."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://…@{tail}" if at else url

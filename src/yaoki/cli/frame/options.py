"""Options that many nouns share, so that they are called and mean the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from yaoki import runtime
from yaoki.cli.frame.durations import parse_duration, parse_instant
from yaoki.text import without_password

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    Seconds = click.ParamType[float]
else:
    Seconds = click.ParamType  # click before 8.4 cannot be subscripted


class _Duration(Seconds):
    """`250ms`, `2s`, `5m`, `30d` as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        del ctx
        return value if isinstance(value, float) else parse_duration(value, param.opts[-1] if param else "it")


class _Instant(Seconds):
    """`1h` (ago), or an ISO 8601 date or time, as seconds since 1970."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        del ctx
        return value if isinstance(value, float) else parse_instant(value, runtime.unix_time(), param.opts[-1] if param else "it")


DURATION = _Duration()
INSTANT = _Instant()


def setting(flag: str, key: str, **more: Any) -> Callable[[F], F]:
    """An option that falls back on the setting `key` (environment, file, default) when its flag is not given."""
    from yaoki.cli.frame.settings import table

    known = table()[key]
    kinds: dict[str, Any] = {"duration": DURATION, "count": click.IntRange(min=1)}
    more.setdefault("help", known.about[0].upper() + known.about[1:] + ".")
    return click.option(flag, callback=lambda _ctx, _param, value: _resolved(key) if value is None else value,
                        type=kinds.get(known.kind, str), show_default=f"setting {key}", **more)


def _resolved(key: str) -> Any:
    from yaoki.cli.frame.settings import resolve

    return resolve()[key].value


def unless_default(db: str) -> str:
    """` --db URL` for a command that is shown to be typed, or "" where the settings say the same anyway."""
    return "" if db == _resolved("db") else f" --db {without_password(db)}"


def since_options(command: F) -> F:
    """`--since` and `--until`: seconds since 1970, or None."""
    command = click.option("--until", type=INSTANT, help="Only what began before: 1h (ago), or an ISO date or time.")(command)
    return click.option("--since", type=INSTANT, help="Only what began since: 1h (ago), or an ISO date or time.")(command)


limit_option = click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most this many.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")

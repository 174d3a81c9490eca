"""Journals by their URLs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from yaoki.errors import ConfigError
from yaoki.saga.journal.port import Journal


def journal_at(url: str, *, durability: str = "power") -> Journal:
    """The journal that a URL names, not opened yet."""
    scheme, _, rest = url.partition(":")
    maker = JOURNALS.get(scheme)
    if maker is None:
        raise ConfigError(f"no journal of kind {scheme!r} in {url!r}",
                          do=f"use one of: {', '.join(f'{each}:' for each in JOURNALS)} as in sqlite:///trips.db")
    return maker(rest, durability)


def _memory(rest: str, durability: str) -> Journal:
    del rest, durability
    from yaoki.saga.journal.memory import MemoryJournal  # noqa: PLC0415  only who asks for it pays for it

    return MemoryJournal()


def _sqlite(rest: str, durability: str) -> Journal:
    from yaoki.saga.journal.sqlite import SqliteJournal  # noqa: PLC0415

    path = rest.removeprefix("///") if rest.startswith("///") else rest.removeprefix("//")
    if not path:
        raise ConfigError(f"sqlite:{rest} names no file", do="write sqlite:///trips.db, or sqlite:////folder/trips.db")
    return SqliteJournal(path, durability=durability)


def _postgres(rest: str, durability: str) -> Journal:
    try:
        from yaoki.saga.journal.postgres import PostgresJournal  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(f"a journal on PostgreSQL needs {error.name}, which is not installed",
                          do="pip install 'yaoki[postgres]'") from error
    return PostgresJournal(f"postgresql:{rest}", durability=durability)


JOURNALS: Mapping[str, Callable[[str, str], Journal]] = {"sqlite": _sqlite, "memory": _memory, "postgresql": _postgres,
                                                         "postgres": _postgres}

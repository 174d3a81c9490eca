"""Journals by their URLs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from yaoki.errors import ConfigError
from yaoki.saga.journal.port import Journal
from yaoki.text import nearest, without_password


def journal_at(url: str, *, durability: str = "power") -> Journal:
    """The journal that a URL names, not opened yet."""
    scheme, colon, rest = url.partition(":")
    maker = JOURNALS.get(scheme)
    if maker is None:
        shown = without_password(url)
        near = nearest(scheme, JOURNALS)
        meant = f"{near}:{without_password(rest)}" if near else "" if colon else f"sqlite:///{shown}"
        raise ConfigError(f"{shown!r} is not the address of a journal" + (f"; did you mean {meant}?" if meant else ""),
                          do="use sqlite:///FILE, or postgresql://USER@HOST/DATABASE")
    return maker(rest, durability)


def _memory(rest: str, durability: str) -> Journal:
    del rest, durability
    from yaoki.saga.journal.memory import MemoryJournal  # noqa: PLC0415  only who asks for it pays for it

    return MemoryJournal()


def _sqlite(rest: str, durability: str) -> Journal:
    from yaoki.saga.journal.sqlite import SqliteJournal  # noqa: PLC0415

    path, mark, words = (rest.removeprefix("///") if rest.startswith("///") else rest.removeprefix("//")).partition("?")
    if not path:
        raise ConfigError(f"sqlite:{rest} names no file", do="write sqlite:///trips.db, or sqlite:////folder/trips.db")
    if mark and words not in {"durability=power", "durability=process"}:
        raise ConfigError(f"{words!r} after the file of sqlite:{rest} is not understood",
                          do="write nothing, or durability=process to survive a killed process but no power cut")
    return SqliteJournal(path, durability=words.removeprefix("durability=") if mark else durability)


def _postgres(rest: str, durability: str) -> Journal:
    try:
        from yaoki.saga.journal.postgres import PostgresJournal  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(f"a journal on PostgreSQL needs {error.name}, which is not installed",
                          do="pip install 'yaoki[postgres]'") from error
    return PostgresJournal(f"postgresql:{rest}", durability=durability)


JOURNALS: Mapping[str, Callable[[str, str], Journal]] = {"sqlite": _sqlite, "memory": _memory, "postgresql": _postgres,
                                                         "postgres": _postgres}

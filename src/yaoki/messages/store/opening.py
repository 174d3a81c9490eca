"""From an address to an open store."""

from __future__ import annotations

from yaoki.errors import ConfigError
from yaoki.messages.store.port import Store
from yaoki.text import without_password


async def open_store(url: str) -> Store:
    """Open `sqlite:///file`, `sqlite:///file?durability=process` or `postgresql://...`, creating our tables as needed.

    Raises:
        ConfigError: another kind of address. StoreError: it cannot be used.
    """
    if url.startswith("sqlite:///"):
        from yaoki.messages.store.sqlite import SqliteStore  # noqa: PLC0415 (each where it is used)

        path, _, query = url.removeprefix("sqlite:///").partition("?")
        if query not in {"", "durability=power", "durability=process"}:
            raise ConfigError(f"{query!r} after the file of {url!r} is not understood",
                              do="write nothing, or durability=process to survive a killed process but no power cut")
        return await SqliteStore.open(path, power_safe=query != "durability=process")
    if url.startswith(("postgresql://", "postgres://")):
        from yaoki.messages.store.postgres import PostgresStore  # noqa: PLC0415 (needs the extra yaoki[postgres])

        try:
            return await PostgresStore.open(url)
        except ValueError as error:  # how the driver says that it cannot read the address
            raise ConfigError(f"{without_password(url)!r} cannot be read as an address: {error}", do="write postgresql://user@host:5432/database") from error
    raise ConfigError(f"{url.partition('://')[0]!r} is not a place for messages",
                      do="give sqlite:///file.db or postgresql://user@host/database")

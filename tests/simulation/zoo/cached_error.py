"""An error is kept in the cache like an answer, and given out for ever."""

from yaoki.errors import InDoubtError, RefusedError
from yaoki.explore import FakeStore, Scenario, World

BREAKS = "steady_state"


def program(*, fixed: bool) -> Scenario:
    rates = FakeStore("rates")
    cache: dict[str, object] = {}

    async def rate() -> float:
        if "eur" not in cache:
            try:
                cache["eur"] = await rates.get("eur", 1.1)
            except (RefusedError, InDoubtError) as error:
                if fixed:
                    raise
                cache["eur"] = error
        if isinstance(cache["eur"], Exception):
            raise cache["eur"]
        return cache["eur"]

    async def main(world: World) -> None:
        cache.clear()
        try:
            await rate()
        except (RefusedError, InDoubtError):
            pass

    return Scenario(main, steady=rate)

"""What an app offers to the world outside: complete a step by its token, fail it, say that it is under way."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from yaoki.errors import InputError
from yaoki.saga import codec
from yaoki.saga.outside import completing
from yaoki.saga.outside.seen import Seen
from yaoki.saga.outside.token import Token
from yaoki.saga.records import Failure

if TYPE_CHECKING:
    from yaoki.saga.engine import Engine

T = TypeVar("T")


class Doors:
    """For an app with an engine. All may be called in any process on the journal, whoever drives the run."""

    engine: Engine

    async def complete(self, token: str, result: Any = None, *, wait: float = 5.0) -> bool:
        """End the step that handed out this token, with its result. The same again is harmless.

        Args:
            wait: seconds to wait until it is recorded; False when it is only stored by then: say it again to know for sure.

        Raises:
            AnswerConflictError: it has ended with another result. TooLateError: it waits no more; its `do` and `taken_back` say
                who undoes what was done. TokenError, RunNotFoundError, InputError.
        """
        return await completing.end(self.engine.journal, token, result=codec.encode(result), wait_s=wait, tell=self.engine.requests.ask,
                                    check=self._check)

    async def fail(self, token: str, error: str | BaseException, *, in_doubt: bool = False, wait: float = 5.0) -> bool:
        """Say that the step failed: it certainly left nothing, or, with `in_doubt`, nobody knows. As `complete`."""
        kind, message = ("Failed", error) if isinstance(error, str) else (type(error).__name__, str(error))
        failure = Failure(kind, message[:2000], in_doubt=in_doubt)
        return await completing.end(self.engine.journal, token, error=failure, wait_s=wait, tell=self.engine.requests.ask)

    async def heartbeat(self, token: str, detail: Any = None) -> None:
        """Say that the step is under way, and how far: it is not asked again for another `heartbeat=` seconds.

        Raises TooLateError when nobody waits for it any more: then stop, and do as its `do` says.
        """
        await completing.beat(self.engine.journal, token, detail)

    def _check(self, token: Token, seen: Seen, data: bytes) -> None:
        saga = self.engine.sagas.get(seen.header.saga)
        if saga is None:
            return  # the worker that has it looks
        try:
            saga.steps[token.step].result.decode(data)
        except msgspec.ValidationError as error:
            raise InputError(f"this is not what {token.step} gives: {error}", do="send the type that external(...) names") from error


class SyncDoors:
    """The same for plain programs, blocking."""

    _app: Any

    def call(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        raise NotImplementedError

    def complete(self, token: str, result: Any = None, *, wait: float = 5.0) -> bool:
        """As `App.complete`."""
        return bool(self.call(lambda: self._app.complete(token, result, wait=wait)))

    def fail(self, token: str, error: str | BaseException, *, in_doubt: bool = False, wait: float = 5.0) -> bool:
        """As `App.fail`."""
        return bool(self.call(lambda: self._app.fail(token, error, in_doubt=in_doubt, wait=wait)))

    def heartbeat(self, token: str, detail: Any = None) -> None:
        """As `App.heartbeat`."""
        self.call(lambda: self._app.heartbeat(token, detail))

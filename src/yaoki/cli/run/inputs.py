"""Lines of JSON as inputs of a saga, each with the id of its run, checked before the first one is used.

A line that is wrong is named by its number, with what is wrong and the path to it. Ids are checked as well: two lines with
one id would be one run, so they must say the same.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import msgspec

from yaoki.errors import InputError
from yaoki.saga.define import Saga

# Bad lines that are shown; a file of the wrong kind has as many as it has lines.
SHOWN = 5

# Bytes of standard input kept in memory while it is checked; more goes to a temporary file.
IN_MEMORY = 16 * 2**20


class Input(NamedTuple):
    """One good line."""

    line: int
    id: str
    value: Any


class Bad(NamedTuple):
    """One bad line, and why."""

    line: int
    why: str


class Lines:
    """The inputs of one file.

    Attributes:
        name: of the file, for messages.
        total: number of good lines, or None when they are checked one by one as they come.
        bad: what was left out (only with `keep_going`), the first `SHOWN` of them; `bad_count` counts all.
        repeated: lines that say again what an earlier line with the same id says.
    """

    def __init__(self, name: str, stream: IO[bytes], saga: Saga[Any], id_field: str, *, keep_going: bool) -> None:
        self.name = name
        self.total: int | None = None
        self.bad: list[Bad] = []
        self.bad_count = 0
        self.repeated = 0
        self._stream = stream
        self._saga = saga
        self._path = id_field.split(".")
        self._keep_going = keep_going

    @classmethod
    def opened(cls, file: str, saga: Saga[Any], id_field: str, *, keep_going: bool) -> Self:
        """Open a file, or `-`, and check it. Raises InputError naming the first bad lines, and OSError."""
        stream: IO[bytes] = open(file, "rb") if file != "-" else sys.stdin.buffer  # noqa: SIM115, PTH123  `__exit__` closes it
        lines = cls(file if file != "-" else "standard input", stream, saga, id_field, keep_going=keep_going)
        if file == "-" and not keep_going:
            lines._stream = _copied(stream)
        if file != "-" or not keep_going:
            try:
                lines.check()
            except BaseException:
                lines.close()
                raise
        return lines

    @staticmethod
    def none() -> AbstractContextManager[None]:
        return nullcontext()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._stream is not sys.stdin.buffer:
            self._stream.close()

    def check(self) -> None:
        """Read all lines once. Afterwards `total` is known, and iterating gives the same lines again."""
        self.total = sum(1 for _ in self)
        self._stream.seek(0)
        if self.bad and not self._keep_going:
            raise self._refusal()

    def _refusal(self) -> InputError:
        first, *others = self.bad
        error = InputError(f"{self.name}:{first.line}: {first.why}",
                           do="mend it and start again: nothing was started. --keep-going starts the good lines only",
                           line=first.line, bad_lines=self.bad_count)
        for bad in others:
            error.add_note(f"{self.name}:{bad.line}: {bad.why}")
        if self.bad_count > len(self.bad):
            error.add_note(f"and {self.bad_count - len(self.bad)} bad lines more")
        return error

    # ── one line after the other ─────────────────────────────────────────────────────────────────────────────────────

    def __iter__(self) -> Iterator[Input]:
        """The good lines. Bad ones are kept in `bad`, and repeated ones left out."""
        self.bad, self.bad_count, self.repeated = [], 0, 0
        seen: dict[str, tuple[int, bytes]] = {}
        for number, raw in enumerate(self._stream, 1):
            text = raw.strip() if number > 1 else raw.removeprefix(b"\xef\xbb\xbf").strip()
            if not text:
                continue
            try:
                found = self._read(number, text)
            except ValueError as error:
                self._note(Bad(number, str(error)))
                continue
            digest = hashlib.blake2b(text, digest_size=8).digest()
            line, said = seen.setdefault(found.id, (number, digest))
            if said != digest:
                self._note(Bad(number, f"id {found.id!r} is that of line {line} already, which says something else"))
            elif line != number:
                self.repeated += 1
            else:
                yield found

    def _note(self, bad: Bad) -> None:
        self.bad_count += 1
        if len(self.bad) < SHOWN:
            self.bad.append(bad)

    def _read(self, number: int, text: bytes) -> Input:
        """Raises ValueError, in words for a person."""
        try:
            plain = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise ValueError(_broken(str(error))) from error
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        run_id = self._id_of(plain)
        try:
            return Input(number, run_id, self._saga.input.decode(text))
        except msgspec.ValidationError as error:
            raise ValueError(_lowered(str(error))) from error

    def _id_of(self, plain: Any) -> str:
        found, path = plain, "$"
        for name in self._path:
            if not isinstance(found, dict):
                raise ValueError(f"a run's id is taken from the field {'.'.join(self._path)!r}, and `{path}` is no object")  # noqa: TRY004
            if name not in found:
                raise ValueError(f"field `{path}.{name}` is missing, which names the run (--id-field names another one)")
            found, path = found[name], f"{path}.{name}"
        if isinstance(found, bool) or not isinstance(found, (str, int)) or found == "":
            raise ValueError(f"`{path}` names the run, and is a text or a whole number, not {found!r}")
        return str(found)


def _copied(stream: IO[bytes]) -> IO[bytes]:
    """Standard input, to be read twice."""
    copy = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  `close` closes it
    while block := stream.read(2**20):
        copy.write(block)
    copy.seek(0)
    return copy


def _broken(text: str) -> str:
    """What msgspec says: "JSON is malformed: ..." or "Input data was truncated"."""
    return f"broken JSON: {text.removeprefix('JSON is malformed: ')}"


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]

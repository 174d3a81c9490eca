"""JSON in and out, typed. Nothing is ever pickled.

What a step returned is written as JSON and read back at once as the type that the step declares, also when nothing
crashed: so a successor sees the same value whether or not the process died in between.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec


class Codec(Protocol):
    """Changes payloads on their way to and from the journal, to encrypt them, say.

    `where` is `run-id/step` (or `run-id/` for the run's input and result): bind it in as associated data, so that a
    payload cannot be moved to another place.
    """

    def encode(self, data: bytes, where: str) -> bytes: ...

    def decode(self, data: bytes, where: str) -> bytes: ...


def _plain(value: Any) -> Any:
    """What msgspec cannot write by itself. Pydantic models are recognised by their method, so that nothing is imported."""
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    raise NotImplementedError


def _typed(kind: type, value: Any) -> Any:
    validate = getattr(kind, "model_validate", None)
    if validate is not None:
        return validate(value)
    raise NotImplementedError


_encoder = msgspec.json.Encoder(enc_hook=_plain)
encode = _encoder.encode
"""Any JSON-able value, dataclass, msgspec Struct or pydantic model as bytes. Raises TypeError for others."""


class Decoder:
    """Reads JSON as one type. Raises `msgspec.ValidationError`, which names the path of what does not fit."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.decode = msgspec.json.Decoder(kind, dec_hook=_typed, strict=True).decode


ANY = Decoder(Any)

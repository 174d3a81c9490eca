"""Tokens: what a step hands out so that the outside world can say later how it ended.

    yk1.<run, step, attempt as JSON, base64url>.<HMAC-SHA256 of it, 128 bits, base64url>

Signed with a key that the journal keeps, so nobody can guess or change one, and nothing has to be stored for each. The same
attempt has the same token however often its request is repeated, so that a repeated request has the same body.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from typing import TYPE_CHECKING

import msgspec

from yaoki.errors import TokenError

if TYPE_CHECKING:
    from yaoki.saga.journal.registers import Registers

PREFIX = "yk1"
_MAC_BYTES = 16
_KEY_BYTES = 32


class Token(msgspec.Struct, frozen=True, array_like=True):
    """Which attempt of which step of which run. attempt: from 1; how often the step was asked to the outside."""

    run: str
    step: str
    attempt: int

    def signed(self, key: bytes) -> str:
        """What is handed out."""
        said = msgspec.json.encode(self)
        return f"{PREFIX}.{_text(said)}.{_text(_mac(key, said))}"

    @staticmethod
    def read(token: str, key: bytes) -> Token:
        """Raises TokenError."""
        parts = token.strip().split(".")
        try:
            prefix, said, mac = parts[0], _bytes(parts[1]), _bytes(parts[2])
        except (IndexError, ValueError, binascii.Error) as error:
            raise _wrong("is not one") from error
        if len(parts) != 3 or prefix != PREFIX:
            raise _wrong("is not one")
        if not hmac.compare_digest(mac, _mac(key, said)):
            raise _wrong("is of another journal, or was changed")
        return msgspec.json.decode(said, type=Token)


async def token_key(journal: Registers) -> bytes:
    """The journal's key; made when it is first asked for, by whoever is first."""
    found = await journal.registers("tokens")
    if "key" not in found:
        await journal.swap_register("tokens", "key", None, os.urandom(_KEY_BYTES))
        found = await journal.registers("tokens")
    return found["key"].data


def _wrong(how: str) -> TokenError:
    return TokenError(f"this token {how}", do="send the token exactly as the step gave it out, to a program on the same journal")


def _mac(key: bytes, said: bytes) -> bytes:
    return hmac.digest(key, said, hashlib.sha256)[:_MAC_BYTES]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)

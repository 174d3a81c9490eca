"""The message being handled here, if any: what is published meanwhile follows from it."""

from __future__ import annotations

from contextvars import ContextVar

from yaoki.messages.envelope import Message

handling: ContextVar[Message | None] = ContextVar("yaoki_message", default=None)

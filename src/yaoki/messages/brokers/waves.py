"""In what order to send a batch over a broker that confirms each message for itself."""

from __future__ import annotations

from collections.abc import Iterable

from yaoki.messages.envelope import Message


def waves(messages: Iterable[Message]) -> list[list[Message]]:
    """Split a batch so that no wave has two messages of a key, and each key's follow in order.

    The next wave is sent when all of the last are confirmed. So if one is not, nothing that comes after it along its key
    has overtaken it, and sending the batch again keeps the order.
    """
    depth: dict[str, int] = {}
    found: list[list[Message]] = []
    for message in messages:
        at = depth.get(message.key, 0) if message.key else 0
        depth[message.key] = at + 1
        if at == len(found):
            found.append([])
        found[at].append(message)
    return found

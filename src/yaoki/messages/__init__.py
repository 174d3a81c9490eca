"""Messages that are never lost and never applied twice. Start with `Messages`; `docs/reference/messages.md` has it all."""

from yaoki.messages.app import Messages
from yaoki.messages.brokers import Broker, Durability, open_broker
from yaoki.messages.consumer import Pace
from yaoki.messages.envelope import Message, from_cloudevent, to_cloudevent
from yaoki.messages.inbox import Inbox
from yaoki.messages.outbox import Outbox
from yaoki.messages.schema import event
from yaoki.messages.verdict import Retries

__all__ = [
    "Broker", "Durability", "Inbox", "Message", "Messages", "Outbox", "Pace", "Retries", "event", "from_cloudevent",
    "open_broker", "to_cloudevent",
]

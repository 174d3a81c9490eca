"""Ways for messages from service to service, under one contract: embedded, postgres, nats, sqs, redis."""

from yaoki.messages.brokers.opening import open_broker
from yaoki.messages.brokers.port import Broker, Delivery, Subscription
from yaoki.messages.store.port import Durability

__all__ = ["Broker", "Delivery", "Durability", "Subscription", "open_broker"]

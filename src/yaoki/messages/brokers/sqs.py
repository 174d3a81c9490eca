"""Amazon SQS: a queue for each group, FIFO by default. Needs `yaoki[aws]`.

A queue has one reader, so a publisher must know the groups: each queue carries the types its group reads as tags, and
publishers look these up once a minute. A group therefore gets what is published after its first subscription; nothing
before. Standard queues (`fifo=False`) are cheaper and promise no order.

Source: Amazon SQS Developer Guide: FIFO delivery logic; quotas (10 messages a batch, 256 KiB a message).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

import msgspec
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from yaoki import runtime
from yaoki.errors import BrokerError, ConfigError, InputError
from yaoki.messages.brokers.port import Delivery
from yaoki.messages.brokers.waves import waves
from yaoki.messages.envelope import Message, received, to_cloudevent
from yaoki.messages.store.port import Durability

FAILURES = (BotoCoreError, ClientError, OSError, TimeoutError)
AT_ONCE = 10
LONGEST_WAIT_S = 20
"""Whole seconds, rounded up: each look is paid for, and one that does not wait would follow upon the other."""
MOST_BYTES = 262_144
"""Of a message, and of all messages of one call."""
KNOW_S = 60.0
TAG = "yaoki-types-"
TAG_CHARS = 240  # AWS allows 256 in a value
SAFE = re.compile(r"[^A-Za-z0-9_-]")


class SqsBroker:
    """SQS as a broker. Open it with `await SqsBroker.open("sqs://eu-central-1")`.

    Args of `open`:
        prefix: of all queue names. fifo: keep the order of keys. endpoint_url: another SQS, as in tests.
        hidden_s: how long a fetched message stays hidden from others before it comes again.
    """

    name = "sqs"
    durability = Durability(survives="power", kill="nothing", power_cut="nothing: three availability zones, by its provider's word")

    def __init__(self, client: Any, stack: AsyncExitStack, *, prefix: str, fifo: bool, hidden_s: int) -> None:
        self.client = client
        self.prefix = prefix
        self.fifo = fifo
        self.hidden_s = hidden_s
        self._stack = stack
        self._routes: dict[str, list[str]] = {}
        self._known_at = float("-inf")

    @classmethod
    async def open(cls, url: str, *, prefix: str = "yaoki", fifo: bool = True, hidden_s: int = 60, endpoint_url: str = "") -> Self:
        """Make a client; nothing is called yet. Credentials are found as boto3 finds them."""
        region = url.removeprefix("sqs://").strip("/")
        if not region or SAFE.search(prefix):
            raise ConfigError(f"{url!r} with prefix {prefix!r} is not an SQS", do="give sqs://REGION and a prefix of letters, digits, - and _")
        stack = AsyncExitStack()
        client = await stack.enter_async_context(
            get_session().create_client("sqs", region_name=region, endpoint_url=endpoint_url or None))
        return cls(client, stack, prefix=prefix, fifo=fifo, hidden_s=hidden_s)

    # ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────

    async def publish(self, messages: Sequence[Message]) -> None:
        routes = await self._look_up()
        for wave in waves(messages):
            by_queue: dict[str, list[dict[str, Any]]] = {}
            for number, message in enumerate(wave):
                for queue in routes.get(message.type, []):
                    by_queue.setdefault(queue, []).append(self._entry(number, message))
            await asyncio.gather(*(self._send(queue, batch) for queue, entries in by_queue.items() for batch in _batches(entries)))

    def _entry(self, number: int, message: Message) -> dict[str, Any]:
        body = to_cloudevent(message)
        if len(body) > MOST_BYTES:
            raise InputError(f"{message.type} {message.id} has {len(body)} bytes, and SQS takes {MOST_BYTES}",
                             do="publish a reference to the data, kept elsewhere")
        entry: dict[str, Any] = {"Id": str(number), "MessageBody": body.decode()}
        if self.fifo:
            entry["MessageGroupId"] = hashlib.sha256((message.key or message.id).encode()).hexdigest()
            entry["MessageDeduplicationId"] = hashlib.sha256(message.identity.encode()).hexdigest()
        return entry

    async def _send(self, queue: str, entries: list[dict[str, Any]]) -> None:
        try:
            answer = await self.client.send_message_batch(QueueUrl=queue, Entries=entries)
        except FAILURES as error:
            raise BrokerError(f"SQS did not confirm: {type(error).__name__}: {error}",
                              do="nothing: they are sent again; see credentials and network if it stays") from error
        if any(each.get("Code") == "InvalidMessageContents" for each in answer.get("Failed", ())):
            raise InputError(f"SQS takes one of {len(entries)} messages never: {answer['Failed'][0]}",
                             do="publish without characters that XML does not have, such as U+0000")
        if answer.get("Failed"):
            raise BrokerError(f"SQS refused {len(answer['Failed'])} of {len(entries)} messages: {answer['Failed'][0]}",
                              do="nothing: they are sent again")

    async def _look_up(self) -> dict[str, list[str]]:
        """Which queues read which types."""
        if runtime.monotonic() - self._known_at < KNOW_S:
            return self._routes
        routes: dict[str, list[str]] = {}
        try:
            pages = self.client.get_paginator("list_queues").paginate(QueueNamePrefix=f"{self.prefix}-")
            async for page in pages:
                for queue in page.get("QueueUrls", []):
                    tags = (await self.client.list_queue_tags(QueueUrl=queue)).get("Tags", {})
                    for type_ in _types_of(tags):
                        routes.setdefault(type_, []).append(queue)
        except FAILURES as error:
            raise BrokerError(f"SQS does not list its queues: {type(error).__name__}: {error}",
                              do="allow sqs:ListQueues and sqs:ListQueueTags") from error
        self._routes, self._known_at = routes, runtime.monotonic()
        return routes

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def subscribe(self, group: str, types: Collection[str]) -> SqsSubscription:
        name = f"{self.prefix}-{SAFE.sub('_', group)}"[:75] + (".fifo" if self.fifo else "")
        attributes = {"VisibilityTimeout": str(self.hidden_s), "MessageRetentionPeriod": str(14 * 86_400)}
        if self.fifo:
            attributes |= {"FifoQueue": "true", "DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}
        try:
            made = await self.client.create_queue(QueueName=name, Attributes=attributes)
            await self.client.tag_queue(QueueUrl=made["QueueUrl"], Tags=_tags_of(types))
        except FAILURES as error:
            raise BrokerError(f"SQS does not let {group} read: {type(error).__name__}: {error}",
                              do="allow sqs:CreateQueue and sqs:TagQueue, or create the queue with other settings away") from error
        self._known_at = float("-inf")
        return SqsSubscription(self.client, made["QueueUrl"], self.name)

    async def close(self) -> None:
        await self._stack.aclose()


class SqsSubscription:
    """One queue. What is fetched stays hidden from others for a while."""

    def __init__(self, client: Any, queue: str, broker: str) -> None:
        self._client = client
        self._queue = queue
        self._broker = broker
        self._open: set[str] = set()

    async def fetch(self, limit: int, wait_s: float) -> list[Delivery]:
        found: list[Delivery] = []
        while len(found) < limit:
            batch = await self._receive(min(AT_ONCE, limit - len(found)), 0 if found else wait_s)
            found += batch
            if not batch:
                break
        return found

    async def _receive(self, limit: int, wait_s: float) -> list[Delivery]:
        try:
            answer = await self._client.receive_message(
                QueueUrl=self._queue, MaxNumberOfMessages=limit, WaitTimeSeconds=min(LONGEST_WAIT_S, math.ceil(wait_s)))
        except FAILURES as error:
            raise BrokerError(f"SQS does not deliver: {type(error).__name__}: {error}",
                              do="nothing: reading begins again; see credentials and network if it stays") from error
        found = answer.get("Messages", [])
        self._open |= {each["ReceiptHandle"] for each in found}
        return [Delivery(received(each["Body"].encode(), self._broker), each["ReceiptHandle"]) for each in found]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for at in range(0, len(deliveries), AT_ONCE):
            handles = [each.token for each in deliveries[at:at + AT_ONCE]]
            try:
                answer = await self._client.delete_message_batch(QueueUrl=self._queue, Entries=[
                    {"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(handles)])
            except FAILURES as error:
                raise BrokerError(f"SQS did not take an acknowledgement: {type(error).__name__}: {error}",
                                  do="nothing: the messages come again and are passed over") from error
            self._open -= set(handles)
            if answer.get("Failed"):
                raise BrokerError(f"SQS did not delete {len(answer['Failed'])} messages", do="nothing: they come again")

    async def close(self) -> None:
        """Show what was not acknowledged again at once."""
        for handle in sorted(self._open):
            try:
                await self._client.change_message_visibility(QueueUrl=self._queue, ReceiptHandle=handle, VisibilityTimeout=0)
            except FAILURES:
                return  # it shows by itself when its time is over
        self._open.clear()


def _tags_of(types: Collection[str]) -> dict[str, str]:
    """The types as tags: JSON cut into pieces, because a value is short."""
    text = msgspec.json.encode(sorted(types)).hex()
    return {f"{TAG}{number}": text[at:at + TAG_CHARS] for number, at in enumerate(range(0, len(text), TAG_CHARS))}


def _batches(entries: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """As many messages in a call as SQS takes, in order."""
    batch: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        bytes_ = len(entry["MessageBody"].encode())
        if batch and (len(batch) == AT_ONCE or size + bytes_ > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += bytes_
    if batch:
        yield batch


def _types_of(tags: dict[str, str]) -> list[str]:
    pieces = sorted((int(name.removeprefix(TAG)), text) for name, text in tags.items() if name.startswith(TAG))
    try:
        return msgspec.json.decode(bytes.fromhex("".join(text for _, text in pieces)), type=list[str]) if pieces else []
    except (ValueError, msgspec.DecodeError):
        return []  # not one of ours

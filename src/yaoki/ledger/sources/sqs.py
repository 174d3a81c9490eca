"""A queue of our own, beside the one that is audited: a second subscriber of the same topic. What it brings is remembered.

A queue cannot be read without taking from it, so never name the queue of the consumer itself. A message is deleted here only
after what it said is durable in the shadow.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from yaoki import runtime
from yaoki.errors import AuditError
from yaoki.ledger.lint import Danger
from yaoki.ledger.records import check_version
from yaoki.ledger.sources.feeds import seen
from yaoki.ledger.sources.shadow import Seen

PAGES_A_LOOK = 500


class QueueFeed:
    """`queue` by name. Bodies are JSON objects with the key and version among their fields; SNS envelopes are opened."""

    heads = False
    vouches = False

    def __init__(self, client: Any, queue: str, key: str, version: str) -> None:
        self._sqs = client
        self._queue = queue
        self.name = f"sqs://{queue}"
        self._key = key
        self._version = version
        self._url = ""
        self._receipts: list[dict[str, str]] = []
        self.unreadable = 0

    async def open(self) -> None:
        answer = await self._ask("get_queue_url", QueueName=self._queue)
        self._url = answer["QueueUrl"]

    async def read(self, place: str) -> AsyncIterator[tuple[list[Seen], str]]:
        del place  # a queue has none
        for _ in range(PAGES_A_LOOK):
            answer = await self._ask("receive_message", QueueUrl=self._url, MaxNumberOfMessages=10, WaitTimeSeconds=0,
                                     AttributeNames=["SentTimestamp"])
            messages = answer.get("Messages", [])
            if not messages:
                return
            self._receipts = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(messages)]
            yield [each for message in messages for each in self._seen(message)], ""

    def _seen(self, message: Mapping[str, Any]) -> list[Seen]:
        text = message["Body"]
        try:
            body = json.loads(text)
            if isinstance(body, dict) and body.get("Type") == "Notification":
                text = body["Message"]
                body = json.loads(text)
            name = str(body[self._key]), check_version(body[self._version], f"field {self._version} in {self.name}")
        except (ValueError, KeyError, TypeError):
            self.unreadable += 1
            return []
        return [seen(*name, int(message["Attributes"]["SentTimestamp"]) / 1000, text.encode())]

    async def settle(self, place: str) -> None:
        del place
        if self._receipts:
            await self._ask("delete_message_batch", QueueUrl=self._url, Entries=self._receipts)
        self._receipts = []

    async def dangers(self) -> list[Danger]:
        answer = await self._ask("get_queue_attributes", QueueUrl=self._url, AttributeNames=["All"])
        found: list[Danger] = []
        if "RedrivePolicy" not in answer["Attributes"]:
            found.append(("no_dead_letters", (f"{self._queue} has no dead-letter queue: a message that is not understood "
                                              "comes back until it expires")))
        if self.unreadable:
            found.append(("unreadable", f"{self.unreadable} message(s) had no {self._key} and {self._version}"))
        return found

    async def _ask(self, operation: str, **arguments: Any) -> Any:
        try:
            return await runtime.run_blocking(getattr(self._sqs, operation), **arguments)
        except (ClientError, BotoCoreError) as error:
            raise AuditError(f"{operation} failed for {self.name}: {error}",
                             do="check the queue's name, the region and the role's rights") from error

"""A store in DynamoDB: partition key `service`, sort key `entry`, and the table's TTL on `expires_at`.

DynamoDB deletes what has run out within days, not seconds, and shows it meanwhile, so every read checks `expires_at` itself
(AWS, UpdateTimeToLive). It has no clock to ask, but every answer carries its date: the difference to this machine's clock is
kept, so that a node whose clock is hours off judges like the others.
"""

from __future__ import annotations

from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
from boto3.dynamodb.conditions import Key
from botocore.config import Config
from botocore.exceptions import ClientError

from yaoki import runtime
from yaoki.policies.shared.stores.port import Entry


class DynamoStore:
    """Rows in one table.

    Args:
        table: its name. `create()` makes it.
        endpoint, region: of another DynamoDB than AWS's own.
    """

    def __init__(self, table: str, *, endpoint: str | None = None, region: str | None = None, timeout_s: float = 1.0) -> None:
        # One attempt: the keeper comes again anyway, and retries inside would hide an outage from it.
        config = Config(retries={"total_max_attempts": 1}, connect_timeout=timeout_s, read_timeout=timeout_s)
        self._resource: Any = boto3.resource("dynamodb", endpoint_url=endpoint, region_name=region, config=config)
        self._table: Any = self._resource.Table(table)
        self._ahead_s = 0.0  # the server's clock minus ours

    @staticmethod
    def at(url: str) -> DynamoStore:
        """`dynamodb://TABLE?endpoint=http://127.0.0.1:5000&region=eu-west-1&timeout=2.5`"""
        parts = urlsplit(url)
        words = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        return DynamoStore(parts.netloc, endpoint=words.get("endpoint"), region=words.get("region"),
                           timeout_s=float(words.get("timeout", 1.0)))

    def create(self) -> None:
        """Make the table, on demand billing, with its TTL switched on. For a first start; production has its own ways."""
        self._resource.create_table(
            TableName=self._table.name, BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("service", "entry")],
            KeySchema=[{"AttributeName": "service", "KeyType": "HASH"}, {"AttributeName": "entry", "KeyType": "RANGE"}])
        self._table.wait_until_exists()
        self._resource.meta.client.update_time_to_live(
            TableName=self._table.name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires_at"})

    def _now(self) -> float:
        return runtime.unix_time() + self._ahead_s

    def _heard(self, answer: dict[str, Any]) -> dict[str, Any]:
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        if date:
            ahead_s = parsedate_to_datetime(date).timestamp() + 0.5 - runtime.unix_time()  # it is cut to whole seconds
            self._ahead_s = ahead_s if abs(ahead_s) > 1.0 else 0.0
        return answer

    def _item(self, service: str, kind: str, name: str, value: bytes, ttl_s: float) -> dict[str, Any]:
        return {"service": service, "entry": f"{kind}:{name}", "value": value,
                "expires_at": Decimal(f"{self._now() + ttl_s:.3f}")}

    def put(self, service: str, kind: str, name: str, value: bytes, ttl_s: float) -> None:
        self._heard(self._table.put_item(Item=self._item(service, kind, name, value, ttl_s)))

    def remove(self, service: str, kind: str, name: str) -> None:
        self._heard(self._table.delete_item(Key={"service": service, "entry": f"{kind}:{name}"}))

    def acquire(self, service: str, name: str, owner: str, ttl_s: float) -> bool:
        try:
            self._heard(self._table.put_item(
                Item=self._item(service, "lease", name, owner.encode(), ttl_s),
                ConditionExpression="attribute_not_exists(service) OR expires_at <= :now OR #value = :me",
                ExpressionAttributeNames={"#value": "value"},
                ExpressionAttributeValues={":now": Decimal(f"{self._now():.3f}"), ":me": owner.encode()}))
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def rows(self, service: str = "") -> list[Entry]:
        words: dict[str, Any] = {"ConsistentRead": True}
        read = self._table.scan
        if service:
            read, words["KeyConditionExpression"] = self._table.query, Key("service").eq(service)
        found: list[Entry] = []
        while True:
            page = self._heard(read(**words))
            found += [entry for item in page["Items"] if (entry := self._entry(item)).left_s > 0]
            if "LastEvaluatedKey" not in page:
                return sorted(found, key=lambda entry: (entry.service, entry.kind, entry.name))
            words["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _entry(self, item: dict[str, Any]) -> Entry:
        kind, _, name = str(item["entry"]).partition(":")
        return Entry(str(item["service"]), kind, name, bytes(item["value"]), float(item["expires_at"]) - self._now())

    def close(self) -> None:
        self._resource.meta.client.close()

"""boto3 and aiobotocore through a `Service`: its policy around every operation, instead of botocore's retries.

    table_service = Service("bookings-table", policy=pipeline(deadline(5.0), retry(4), breaker()))
    dynamodb = client("dynamodb", service=table_service, region_name="eu-west-1")     # a boto3 client
    dynamodb.get_item(...)

    guard(existing_client, table_service)        # or a client of yours; also one of aiobotocore

- botocore's own retries are switched off, not stacked on: `client` asks for one attempt, `guard` refuses a client with more.
- An operation with an idempotency token (`ClientRequestToken` and the like) gets it once, from the saga step under way where
  there is one, so that it is the same on every attempt; botocore would draw a new one for each.
- What only reads, has a token, or is idempotent by its HTTP method may be repeated when nobody knows whether it happened;
  for others say so: `idempotent={"PutItem"}`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any, TypeVar

import boto3
from botocore.config import Config

from yaoki import effect, runtime
from yaoki.errors import ConfigError
from yaoki.policies.protocols import IDEMPOTENT_METHODS
from yaoki.service import Service

C = TypeVar("C")

ONE_ATTEMPT = Config(retries={"total_max_attempts": 1})

# How operations that only read begin, in every service model of botocore.
READS = ("Get", "List", "Describe", "Head", "Query", "Scan", "BatchGet", "Search", "Select")

# Protocols in which the HTTP method means what RFC 9110 says; in the others everything is a POST.
REST = frozenset({"rest-json", "rest-xml"})


def client(name: str, *, service: Service, idempotent: Collection[str] = (), **settings: Any) -> Any:
    """A boto3 client whose every operation goes through `service`.

    Args:
        name: AWS's name of the service: dynamodb, s3, ...
        idempotent: names of further operations that may be repeated.
        settings: passed on to `boto3.client`; a `config` of yours is kept, but for its retries.
    """
    config = settings.pop("config", None)
    config = ONE_ATTEMPT if config is None else config.merge(ONE_ATTEMPT)
    return guard(boto3.client(name, config=config, **settings), service, idempotent=idempotent)


def guard(client: C, service: Service, *, idempotent: Collection[str] = ()) -> C:
    """Put `service` around each operation of this client of boto3's or aiobotocore's; returns the same client.

    Raises:
        ConfigError: the client retries by itself: attempts would multiply.
    """
    made: Any = client
    attempts = (made.meta.config.retries or {}).get("total_max_attempts", 5)
    if attempts != 1:
        raise ConfigError(f"this {made.meta.service_model.service_name} client makes up to {attempts} attempts of its own, "
                          "which would multiply with the policy's",
                          do="create it with config=yaoki.integrations.aws.ONE_ATTEMPT, or by yaoki.integrations.aws.client(...)")
    send = made._make_api_call  # noqa: SLF001  botocore has no public place around an operation; its instrumentations use this
    model = made.meta.service_model

    def call(operation_name: str, parameters: dict[str, Any]) -> Any:
        operation = model.operation_model(operation_name)
        sent = _with_token(operation, parameters)
        repeatable = operation_name in idempotent or _is_idempotent(operation, model.metadata.get("protocol", ""))
        return service.call(send, operation_name, sent, idempotent=repeatable or None, operation=operation_name)

    made._make_api_call = call  # noqa: SLF001
    return client


def _is_idempotent(operation: Any, protocol: str) -> bool:
    return (operation.name.startswith(READS) or bool(operation.idempotent_members)
            or (protocol in REST and operation.http.get("method") in IDEMPOTENT_METHODS))


def _with_token(operation: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters with the operation's idempotency token: once for all attempts."""
    missing = [member for member in operation.idempotent_members if member not in parameters]
    if not missing:
        return parameters
    under_way = effect.current.get()
    # 32 characters: some services take no more than 36.
    token = hashlib.blake2b(under_way.next_key().encode(), digest_size=16).hexdigest() if under_way else runtime.new_id()
    return {**parameters, **dict.fromkeys(missing, token)}

"""Calls to AWS for an audit: refused ones say what to grant, and values come out as Lambda writes them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from yaoki import runtime
from yaoki.errors import AuditError


class Clients(msgspec.Struct, frozen=True):
    """boto3 clients of the table's account and region."""

    dynamodb: Any
    streams: Any
    functions: Any

    async def ask(self, client: str, operation: str, about: str, /, **arguments: Any) -> Any:
        """Call an operation on a worker thread. `about`: what is audited, for errors. Raises `AuditError` saying what to do."""
        try:
            return await runtime.run_blocking(getattr(getattr(self, client), operation), **arguments)
        except ClientError as error:
            raise _explained(error, client, operation, about) from error
        except BotoCoreError as error:
            raise AuditError(f"{operation} got no answer: {error}", do="check the endpoint, the network and the credentials",
                             aws=type(error).__name__) from error


def action_of(client: str, operation: str) -> str:
    """The action that a role must be granted for this call."""
    if (client, operation) == ("functions", "invoke"):
        return "lambda:InvokeFunction"
    words = "".join(word.capitalize() for word in operation.split("_"))
    return f"{'lambda' if client == 'functions' else 'dynamodb'}:{words}"


def _explained(error: ClientError, client: str, operation: str, about: str) -> AuditError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code == "ResourceNotFoundException":
        what = about if operation == "describe_table" else f"what {operation} asks for"
        return AuditError(f"there is no {what}", do="check the name, the region and the account", aws=code)
    if code in {"AccessDeniedException", "AccessDenied", "403", "UnrecognizedClientException", "InvalidSignatureException"}:
        return AuditError(f"{operation} is not allowed to us", aws=code,
                          do=f"grant {action_of(client, operation)} to the auditor's role; docs/how-to/audit-a-pipeline.md has all of them")
    return AuditError(f"{operation} failed: {error}", do="look up the code in the service's documentation", aws=code)


def plain(value: Any) -> Any:
    """boto3's values as Lambda writes them in JSON."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(each) for each in value]
    return value

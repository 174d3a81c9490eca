"""A ledger in DynamoDB. `ledger.py` writes and reads it, `sealing.py` seals it, `keeper.py` keeps it and its sinks going."""

from yaoki.ledger.dynamodb.ledger import DynamoLedger
from yaoki.ledger.dynamodb.tables import Tables

__all__ = ["DynamoLedger", "Tables"]

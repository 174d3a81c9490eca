"""Where a ledger is kept: one contract (`port`), SQLite, PostgreSQL and DynamoDB."""

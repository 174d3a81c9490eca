"""Where messages are kept: one contract (`port`), SQLite and PostgreSQL."""

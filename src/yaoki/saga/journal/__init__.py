"""Where runs are kept: one port (`port.py`), and an implementation a file: memory, SQLite, PostgreSQL."""

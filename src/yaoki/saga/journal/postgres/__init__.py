"""A journal on PostgreSQL 14 or newer, which any number of worker processes share.

`journal.py` is the port's implementation; `statements.py` what it says to the server; `lease.py` keeps this worker alive in
the eyes of the others; `schema.py` and `migrations/` make and change the tables; `link.py` finds the server again.
"""

from yaoki.saga.journal.postgres.journal import PostgresJournal

__all__ = ["PostgresJournal"]

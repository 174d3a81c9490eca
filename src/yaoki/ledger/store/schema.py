"""The ledger's tables. Rows of `yaoki_ledger_version` are changed only to erase their content, and go only when they are pruned."""

from __future__ import annotations

VERSION = 1

STEP = 10_000
"""Positions that one statement draws at once: a number for each row would cost a tenth of the insert. Positions last for
9e14 statements."""

COMMON = """
CREATE TABLE IF NOT EXISTS yaoki_ledger_epoch (
    part INTEGER NOT NULL, epoch BIGINT NOT NULL, first_seq BIGINT NOT NULL, row_count BIGINT NOT NULL,
    count BIGINT NOT NULL, sum128 TEXT NOT NULL, sketch {bytes} NOT NULL, beat BIGINT NOT NULL,
    until_xid BIGINT NOT NULL, until_pos BIGINT NOT NULL, sealed_at {float} NOT NULL,
    root TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (part, epoch));
CREATE INDEX IF NOT EXISTS yaoki_ledger_epoch_seq ON yaoki_ledger_epoch (part, first_seq);
CREATE TABLE IF NOT EXISTS yaoki_ledger_lease (
    name TEXT PRIMARY KEY, owner TEXT NOT NULL, fence BIGINT NOT NULL, held_until {float} NOT NULL);
CREATE TABLE IF NOT EXISTS yaoki_ledger_cursor (
    sink TEXT NOT NULL, part INTEGER NOT NULL, next_seq BIGINT NOT NULL, PRIMARY KEY (sink, part));
CREATE TABLE IF NOT EXISTS yaoki_ledger_quarantine (
    sink TEXT NOT NULL, part INTEGER NOT NULL, seq BIGINT NOT NULL, key TEXT NOT NULL, version BIGINT NOT NULL,
    reason TEXT NOT NULL, attempts INTEGER NOT NULL, error TEXT NOT NULL, first_at {float} NOT NULL,
    next_at {float} NOT NULL, PRIMARY KEY (sink, part, seq));
CREATE INDEX IF NOT EXISTS yaoki_ledger_quarantine_key ON yaoki_ledger_quarantine (sink, key);
CREATE TABLE IF NOT EXISTS yaoki_ledger_receipt (
    sink TEXT NOT NULL, part INTEGER NOT NULL, epoch BIGINT NOT NULL, count BIGINT NOT NULL, sum128 TEXT NOT NULL,
    read_at {float} NOT NULL, PRIMARY KEY (sink, part, epoch));
CREATE TABLE IF NOT EXISTS yaoki_ledger_finding (
    id TEXT PRIMARY KEY, sink TEXT NOT NULL, state TEXT NOT NULL, opened_at {float} NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS yaoki_ledger_finding_open ON yaoki_ledger_finding (sink, state);
CREATE TABLE IF NOT EXISTS yaoki_ledger_note (name TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS yaoki_ledger_pruned (
    part INTEGER PRIMARY KEY, epoch BIGINT NOT NULL, next_seq BIGINT NOT NULL, until_xid BIGINT NOT NULL,
    until_pos BIGINT NOT NULL, at {float} NOT NULL);
"""

SQLITE = """
CREATE TABLE IF NOT EXISTS yaoki_ledger_head (key TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS yaoki_ledger_version (
    pos INTEGER PRIMARY KEY AUTOINCREMENT, part INTEGER NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL,
    digest BLOB, salt BLOB, commitment BLOB NOT NULL, content BLOB, schema INTEGER NOT NULL, written_at REAL NOT NULL,
    traceparent TEXT NOT NULL, UNIQUE (key, version));
CREATE INDEX IF NOT EXISTS yaoki_ledger_version_part ON yaoki_ledger_version (part, pos);
CREATE TRIGGER IF NOT EXISTS yaoki_ledger_no_delete BEFORE DELETE ON yaoki_ledger_version
    WHEN NOT EXISTS (SELECT 1 FROM yaoki_ledger_pruned p WHERE p.part = OLD.part AND OLD.pos <= p.until_pos)
    BEGIN SELECT RAISE(ABORT, 'a ledger is append-only: its rows are deleted only when they were sealed, and pruned'); END;
CREATE TRIGGER IF NOT EXISTS yaoki_ledger_no_update BEFORE UPDATE ON yaoki_ledger_version
    WHEN NEW.content IS NOT NULL OR NEW.key IS NOT OLD.key OR NEW.version IS NOT OLD.version
        OR NEW.commitment IS NOT OLD.commitment OR NEW.pos IS NOT OLD.pos OR NEW.part IS NOT OLD.part
    BEGIN SELECT RAISE(ABORT, 'a ledger is append-only: its rows change only when their content is erased'); END;
"""

POSTGRES = """
CREATE TABLE IF NOT EXISTS yaoki_ledger_head (
    key TEXT COLLATE "C" PRIMARY KEY, version BIGINT NOT NULL, eff_xid BIGINT NOT NULL) WITH (fillfactor = 70);
CREATE SEQUENCE IF NOT EXISTS yaoki_ledger_pos INCREMENT {step};
CREATE TABLE IF NOT EXISTS yaoki_ledger_version (
    pos BIGINT NOT NULL, eff_xid BIGINT NOT NULL, part INTEGER NOT NULL,
    key TEXT COLLATE "C" NOT NULL, version BIGINT NOT NULL, digest BYTEA, salt BYTEA, commitment BYTEA NOT NULL, content BYTEA,
    schema INTEGER NOT NULL, written_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(), traceparent TEXT NOT NULL
    ) PARTITION BY RANGE (written_at);
CREATE INDEX IF NOT EXISTS yaoki_ledger_version_part ON yaoki_ledger_version (part, eff_xid, pos);
CREATE INDEX IF NOT EXISTS yaoki_ledger_version_key ON yaoki_ledger_version (key, version);
CREATE TABLE IF NOT EXISTS yaoki_ledger_version_rest PARTITION OF yaoki_ledger_version DEFAULT;
ALTER TABLE yaoki_ledger_epoch ALTER COLUMN sketch SET STORAGE EXTERNAL;  -- numbers that look random cannot be made smaller
CREATE OR REPLACE FUNCTION yaoki_ledger_keep() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.content IS NULL AND NEW.key = OLD.key AND NEW.version = OLD.version
        AND NEW.commitment = OLD.commitment AND NEW.pos = OLD.pos AND NEW.part = OLD.part THEN RETURN NEW; END IF;
    IF TG_OP = 'DELETE' AND EXISTS (SELECT 1 FROM yaoki_ledger_pruned p
        WHERE p.part = OLD.part AND (OLD.eff_xid, OLD.pos) <= (p.until_xid, p.until_pos)) THEN RETURN OLD; END IF;
    RAISE EXCEPTION 'a ledger is append-only: its rows change only when their content is erased';
END $body$;
CREATE OR REPLACE TRIGGER yaoki_ledger_keep BEFORE UPDATE OR DELETE ON yaoki_ledger_version
    FOR EACH ROW EXECUTE FUNCTION yaoki_ledger_keep();
"""


def statements(dialect: str) -> str:
    """All that makes an empty database one that keeps a ledger."""
    if dialect == "sqlite":
        return COMMON.format(bytes="BLOB", float="REAL") + SQLITE
    return COMMON.format(bytes="BYTEA", float="DOUBLE PRECISION") + POSTGRES.replace("{step}", str(STEP))

"""What the journal says to the server, one statement a purpose; why each is as it is stands above it.

Every write of a worker begins with the *fence*: it moves a counter in the worker's own row from n-1 to n, only if the
worker is alive, and renews its lease with it. That one probe of one row does four things:

- a worker that was declared dead writes nothing: the rest of the statement joins on the fence, so it is all or nothing;
- whoever wants to declare it dead waits for the row, and then finds the lease renewed;
- a statement that is sent again, because the connection broke before its answer came, finds the counter moved already and
  does nothing, also when the first one arrives late: so "was it committed?" is answered by the row, never guessed;
- a lease cannot run out while its worker commits.
"""

from __future__ import annotations

from yaoki.saga.journal.postgres import lanes

NOW = "extract(epoch FROM clock_timestamp())::float8"

# The order of `Header`'s fields.
HEADER = ("no, id, saga, graph, state, input, result, reason, traceparent, created_at, updated_at, finished_at, deadline_at, "
          "fence")

# ── one batch ────────────────────────────────────────────────────────────────────────────────────────────────────────

_FENCE = f"""
WITH fence AS (
    UPDATE yaoki.worker SET {{counter}} = $2, lease_until = {NOW} + lease_s
    WHERE no = $1 AND {{also}}{{counter}} = $2 - 1 AND state IN ('alive', 'draining') RETURNING no
)"""

# A batch also knows which claim was acknowledged last ($3). A standby that became the server without having got it has lost it, and
# with it what this worker believes to own.
BATCH_FENCE = _FENCE.format(counter="batch", also="claim >= $3 AND ")  # and the parts in `batch.py`
CLAIM_FENCE = _FENCE.format(counter="claim", also="")
# The same for one run inside a step's own transaction, at its end: nothing when the worker is dead, or the run is not its own any
# more. The run's row is always touched: whoever reads back after a broken connection waits for it, and so for the transaction's end.
# From here to the commit the worker's row is locked; should the worker stop in between, the server ends its session ($14).
STEP_END = """
WITH alive AS MATERIALIZED (
    SELECT no FROM yaoki.worker WHERE no = $1 AND state IN ('alive', 'draining') FOR SHARE
), changed AS (
    UPDATE yaoki.run SET state = coalesce($3, state), result = $4, reason = $5, updated_at = $6, finished_at = $7,
        owner = CASE WHEN $8::float8 IS NULL THEN owner END, due_at = coalesce($8, due_at)
    FROM alive WHERE run.no = $2 AND owner = alive.no RETURNING run.no
), written AS (
    INSERT INTO yaoki.record (run, seq, kind, step, data, at)
    SELECT changed.no, r.* FROM changed, unnest($9::int[], $10::text[], $11::text[], $12::bytea[], $13::float8[]) AS r
)
SELECT no, set_config('idle_in_transaction_session_timeout', $14, true) FROM changed"""
STEP_FOUND = """
WITH ended AS MATERIALIZED (SELECT no FROM yaoki.run WHERE no = $1 FOR UPDATE)
SELECT EXISTS (SELECT FROM yaoki.record, ended WHERE run = $1 AND seq = $2)"""
BURN_CLAIM = """
UPDATE yaoki.worker SET claim = $2::bigint WHERE no = $1 AND claim BETWEEN $2::bigint - 1 AND $2::bigint AND state IN ('alive', 'draining') RETURNING no"""
DID_COMMIT = "SELECT state, batch, claim FROM yaoki.worker WHERE no = $1 FOR UPDATE"

BY_IDS = f"SELECT {HEADER}, owner FROM yaoki.run WHERE id = ANY($1)"
PAST_BY_IDS = f"SELECT {HEADER}, NULL::bigint FROM yaoki.past WHERE id = ANY($1)"

# ── claiming ─────────────────────────────────────────────────────────────────────────────────────────────────────────

# A lane at a time, urgent ones first, tenants in turn (among equals a lane gives its share of $3, or $6 if that is more), each by one
# range of `run_waiting`: what is not due yet, or is not for this worker, is never looked at, however much of it there is.
CLAIM = f"""{CLAIM_FENCE}, {lanes.candidates(f"l.gate = 0 AND {lanes.may_take('$4', '$5')}", "$7")}, lanes AS MATERIALIZED (
    SELECT l.no, count(*) OVER (PARTITION BY l.priority) AS peers FROM fence, candidate l {lanes.HAS_DUE}
    ORDER BY l.priority, random()
), picked AS MATERIALIZED (
    SELECT found.no FROM lanes CROSS JOIN LATERAL (
        SELECT r.no FROM yaoki.run r
        WHERE r.owner IS NULL AND r.lane = lanes.no AND r.due_at <= extract(epoch FROM now())::float8
        ORDER BY r.due_at, r.no
        LIMIT greatest($6::bigint, $3::bigint / lanes.peers) FOR UPDATE SKIP LOCKED
    ) AS found LIMIT $3::bigint
), claimed AS (
    UPDATE yaoki.run SET owner = $1, claim = $2, fence = run.fence + 1, due_at = least(due_at, {NOW}) FROM picked WHERE run.no = picked.no
    RETURNING {", ".join(f"run.{each.strip()}" for each in HEADER.split(","))}, run.lane
)
SELECT fence.no AS fenced, claimed.* FROM fence LEFT JOIN claimed ON true"""

CLAIM_ONE = f"""{CLAIM_FENCE}, claimed AS (
    UPDATE yaoki.run SET owner = $1, claim = $2, fence = run.fence + 1, due_at = least(due_at, {NOW}) FROM fence
    WHERE run.id = $3 AND run.finished_at = 0 AND (run.owner IS NULL OR run.owner = $1)
    RETURNING {", ".join(f"run.{each.strip()}" for each in HEADER.split(","))}, run.lane
)
SELECT fence.no AS fenced, claimed.* FROM fence LEFT JOIN claimed ON true"""

CLAIMED = f"SELECT {HEADER}, lane FROM yaoki.run WHERE owner = $1 AND claim = $2 AND finished_at = 0"
RELEASE = f"""{CLAIM_FENCE}, freed AS (
    UPDATE yaoki.run SET owner = NULL FROM fence WHERE run.no = ANY($3::bigint[]) AND run.owner = $1
) SELECT no FROM fence"""
OWNED = "SELECT no, id FROM yaoki.run WHERE owner = $1 AND finished_at = 0"
# The newest of a saga's graphs is the one that a program opened last.
SAVE_GRAPH = f"""
INSERT INTO yaoki.definition (hash, saga, graph) VALUES ($1, $2, $3)
ON CONFLICT (hash) DO UPDATE SET graph = $3, last_seen = {NOW}"""
RECORDS = "SELECT run, kind, step, data, at FROM yaoki.record WHERE run = ANY($1) ORDER BY run, seq"

# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────

REGISTER = f"""
INSERT INTO yaoki.worker (name, host, pid, lease_s, lease_until, started_at, graphs, queues)
VALUES ($1, $2, $3, $4, {NOW} + $4, {NOW}, $5, $6) RETURNING no, {NOW} AS now"""
RENEW = f"""
UPDATE yaoki.worker SET lease_until = {NOW} + lease_s WHERE no = $1 AND state IN ('alive', 'draining')
RETURNING {NOW} AS now, (SELECT min(lease_until) FROM yaoki.worker WHERE state IN ('alive', 'draining') AND no <> $1) AS next"""
# Passes by a worker whose row is locked, for that one is writing. Who gets the lock sees the row as it is then: so whoever is
# declared dead here has no write under way, and has made nothing its own since this statement began, for that renews the lease.
REAP = f"""
WITH late AS MATERIALIZED (
    SELECT no FROM yaoki.worker WHERE state IN ('alive', 'draining') AND lease_until < {NOW} FOR UPDATE SKIP LOCKED
), dead AS (
    UPDATE yaoki.worker SET state = 'dead', last_batch = batch FROM late WHERE worker.no = late.no RETURNING worker.no, worker.name
), freed AS (
    UPDATE yaoki.run SET owner = NULL FROM dead
    WHERE owner = dead.no AND finished_at = 0 RETURNING dead.no
)
SELECT dead.name, (SELECT count(*) FROM freed WHERE freed.no = dead.no) AS runs FROM dead"""
# Two statements: the second sees what a batch has created that the first had to wait for.
LEAVE = f"UPDATE yaoki.worker SET state = 'gone', lease_until = {NOW} WHERE no = $1 AND state IN ('alive', 'draining')"
LEAVE_BEHIND = "UPDATE yaoki.run SET owner = NULL WHERE owner = $1 AND finished_at = 0"
DRAIN = "UPDATE yaoki.worker SET state = 'draining' WHERE no = $1 AND state = 'alive'"
SERVE = "UPDATE yaoki.worker SET graphs = $2, queues = $3 WHERE no = $1"
WORKERS = f"""
SELECT no, name, host, pid, state, lease_until - {NOW} AS left_s, {NOW} - started_at AS age_s, graphs, queues,
    (SELECT count(*) FROM yaoki.run r WHERE r.owner = w.no AND r.finished_at = 0) AS runs
FROM yaoki.worker w WHERE state IN ('alive', 'draining') OR lease_until > {NOW} - $1::float8 ORDER BY no"""

# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────

REQUEST = f"""
WITH asked AS (INSERT INTO yaoki.request (run, kind, data, at) VALUES ($1, $2, $3, $4))
UPDATE yaoki.run SET due_at = least(due_at, {NOW}) WHERE id = $1 AND owner IS NULL AND finished_at = 0"""
# What this worker has to carry out: for runs that it owns, and for those that are gone or ended, where nothing is to be done.
REQUESTS = """
SELECT q.no, q.run, q.kind, q.data, q.at FROM yaoki.request q LEFT JOIN yaoki.run r ON r.id = q.run
WHERE r.no IS NULL OR r.owner = $1 OR r.finished_at > 0 OR $1 = 0 ORDER BY q.no LIMIT 1000"""
# A request that came in the very moment in which its run was parked.
MISSED = f"""
UPDATE yaoki.run SET due_at = {NOW} FROM (SELECT DISTINCT run FROM yaoki.request LIMIT 1000) q
WHERE run.id = q.run AND run.owner IS NULL AND run.finished_at = 0 AND run.due_at > {NOW}"""

# First the definitions, which are few: mostly all have a worker, and then no lane is asked.
STRANDED = """
WITH lost AS MATERIALIZED (
    SELECT graph FROM (SELECT DISTINCT graph FROM yaoki.lane) AS known
    WHERE NOT EXISTS (SELECT FROM yaoki.worker w WHERE w.state = 'alive' AND known.graph = ANY(w.graphs))
)
SELECT l.saga, l.graph, sum(due.runs)::bigint FROM lost JOIN yaoki.lane l ON l.graph = lost.graph CROSS JOIN LATERAL (
    SELECT count(*) AS runs FROM (SELECT FROM yaoki.run r WHERE r.owner IS NULL AND r.lane = l.no
        AND r.due_at <= extract(epoch FROM now())::float8 LIMIT 1000) AS few
) AS due
WHERE due.runs > 0 GROUP BY 1, 2"""

# ── the past ─────────────────────────────────────────────────────────────────────────────────────────────────────────

# Ended runs become one row each, history included, in the partition of the day on which they ended. Their owners are
# known, so no index on the end is needed.
ARCHIVE = f"""
WITH ended AS MATERIALIZED (
    SELECT no FROM yaoki.run WHERE owner IN (SELECT no FROM yaoki.worker) AND finished_at > 0 AND finished_at < $1
    LIMIT $2 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM yaoki.run USING ended WHERE run.no = ended.no RETURNING run.*
), records AS (
    DELETE FROM yaoki.record USING ended WHERE record.run = ended.no RETURNING record.*
), told AS (
    SELECT run, jsonb_agg(jsonb_build_array(kind, step, encode(data, 'base64'), at) ORDER BY seq) AS records FROM records GROUP BY run
)
INSERT INTO yaoki.past ({HEADER}, records)
SELECT {", ".join(f"gone.{each.strip()}" for each in HEADER.split(","))}, coalesce(told.records, '[]')
FROM gone LEFT JOIN told ON told.run = gone.no"""
# Before the move, and one with it: see `functions.py`.
MOVED = "UPDATE yaoki.moved SET times = times + 1"
FORGET_ATTRIBUTES = "DELETE FROM yaoki.attribute a USING yaoki.{name} p WHERE a.run = p.no"
OLDEST_ENDED = """
SELECT min(finished_at) FROM yaoki.run WHERE owner IN (SELECT no FROM yaoki.worker) AND finished_at > 0 AND finished_at < $1"""
PURGE = """
WITH ended AS MATERIALIZED (
    SELECT no FROM yaoki.run WHERE owner IN (SELECT no FROM yaoki.worker) AND finished_at > 0 AND finished_at < $1
    ORDER BY no LIMIT $2 FOR UPDATE SKIP LOCKED
), records AS (DELETE FROM yaoki.record USING ended WHERE record.run = ended.no),
attributes AS (DELETE FROM yaoki.attribute USING ended WHERE attribute.run = ended.no)
DELETE FROM yaoki.run USING ended WHERE run.no = ended.no"""
PURGE_PAST = """
WITH ended AS MATERIALIZED (SELECT no, finished_at FROM yaoki.past WHERE finished_at < $1 LIMIT $2),
attributes AS (DELETE FROM yaoki.attribute USING ended WHERE attribute.run = ended.no)
DELETE FROM yaoki.past WHERE (no, finished_at) IN (SELECT no, finished_at FROM ended)"""
PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'yaoki.past'::regclass ORDER BY 1"""
READ = f"SELECT {HEADER} FROM yaoki.run WHERE id = $1"
READ_PAST = f"SELECT {HEADER}, records FROM yaoki.past WHERE id = $1 ORDER BY no DESC LIMIT 1"
HEADERS = f"SELECT {HEADER} FROM yaoki.run WHERE id = ANY($1) UNION ALL SELECT {HEADER} FROM yaoki.past WHERE id = ANY($1)"
COUNTS = """
SELECT state, sum(n)::bigint FROM (
    SELECT state, count(*) AS n FROM yaoki.run WHERE $1 IN ('', saga) GROUP BY state
    UNION ALL SELECT state, count(*) FROM yaoki.past WHERE $1 IN ('', saga) GROUP BY state) AS both_ GROUP BY state"""

"""The tables, version by version. A step that was released is never changed: a new one is added below it.

    worker      one row an incarnation: a process from its start, or from its last fencing, to its end
    lane        what may be claimed together: one row for each graph, queue, priority and tenant in use
    run         live runs: header, owner, and when they are due; small rows, so that an end is one update in place
    record      histories of live runs, append-only; keyed by the run's number, which only grows
    past        ended runs with their histories as one row, in partitions by the day on which they ended
    request     what people and other runs ask of a run
    definition  graphs by hash
    register    the newest value of small things: what a step last reported, what a schedule has fired
    lock        claims of runs on the keys of semantic locks, first come first
    moved       how often runs were moved to the past, and functions that users call: `functions.py`
    queue, place, pause, operation, attribute, and the gates of lanes: `gates.py`

Times are seconds since 1970 by the server's clock (double precision), the same as in the other journals.
"""

from __future__ import annotations

from yaoki.saga.journal.postgres.functions import FUNCTIONS, MOVED
from yaoki.saga.journal.postgres.gates import GATES

FIRST = """
CREATE TABLE yaoki.worker (
    no          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    host        text NOT NULL,
    pid         integer NOT NULL,
    state       text NOT NULL DEFAULT 'alive' CHECK (state IN ('alive', 'draining', 'dead', 'gone')),
    lease_s     double precision NOT NULL,
    lease_until double precision NOT NULL,
    started_at  double precision NOT NULL,
    batch       bigint NOT NULL DEFAULT 0,
    claim       bigint NOT NULL DEFAULT 0,
    last_batch  bigint,  -- what `batch` was when it was declared dead: should it ever be higher, the fence is broken
    graphs      text[] NOT NULL DEFAULT '{}',
    queues      text[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

CREATE TABLE yaoki.lane (
    no       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    saga     text NOT NULL,
    graph    text NOT NULL,
    queue    text NOT NULL,
    priority smallint NOT NULL,
    tenant   text NOT NULL,
    UNIQUE (graph, queue, priority, tenant, saga)
);
CREATE INDEX lane_turn ON yaoki.lane (priority, no);

CREATE TABLE yaoki.run (
    no          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          text NOT NULL UNIQUE,
    saga        text NOT NULL,
    graph       text NOT NULL,
    state       text NOT NULL,
    input       bytea NOT NULL,
    result      bytea NOT NULL DEFAULT '',
    reason      text NOT NULL DEFAULT '',
    traceparent text NOT NULL DEFAULT '',
    created_at  double precision NOT NULL,
    updated_at  double precision NOT NULL,
    finished_at double precision NOT NULL DEFAULT 0,
    deadline_at double precision NOT NULL DEFAULT 0,
    fence       integer NOT NULL DEFAULT 0,
    lane        integer NOT NULL,
    owner       bigint,
    claim       bigint NOT NULL DEFAULT 0,  -- the owner's number of the claim by which it has this run
    due_at      double precision NOT NULL
) WITH (fillfactor = 45);
-- `owner` and `due_at` do not change when a run ends, and nothing that changes then is indexed, so that the end is a
-- heap-only update: it touches no index (the pages are left half empty for it). That is why `finished_at` and `state` have none.
CREATE INDEX run_waiting ON yaoki.run (lane, due_at, no) WHERE owner IS NULL;
-- See lanes.py. Its second condition is always true: only the query that says it too uses this index, and for one lane it would be the wrong one.
CREATE INDEX run_due ON yaoki.run (due_at, lane) WHERE owner IS NULL AND no > 0;
CREATE INDEX run_owned ON yaoki.run (owner) WHERE owner IS NOT NULL;

CREATE TABLE yaoki.record (
    run  bigint NOT NULL,
    seq  integer NOT NULL,
    kind text NOT NULL,
    step text NOT NULL,
    data bytea NOT NULL,
    at   double precision NOT NULL,
    PRIMARY KEY (run, seq)
);

CREATE TABLE yaoki.past (
    no          bigint NOT NULL,
    id          text NOT NULL,
    saga        text NOT NULL,
    graph       text NOT NULL,
    state       text NOT NULL,
    input       bytea NOT NULL,
    result      bytea NOT NULL,
    reason      text NOT NULL,
    traceparent text NOT NULL,
    created_at  double precision NOT NULL,
    updated_at  double precision NOT NULL,
    finished_at double precision NOT NULL,
    deadline_at double precision NOT NULL,
    fence       integer NOT NULL,
    records     jsonb NOT NULL
) PARTITION BY RANGE (finished_at);
CREATE INDEX past_no ON yaoki.past (no);
CREATE INDEX past_id ON yaoki.past (id);

CREATE TABLE yaoki.request (
    no   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run  text NOT NULL,
    kind text NOT NULL,
    data bytea NOT NULL,
    at   double precision NOT NULL
);
CREATE INDEX request_run ON yaoki.request (run);

CREATE TABLE yaoki.definition (
    hash       text PRIMARY KEY,
    saga       text NOT NULL,
    graph      bytea NOT NULL,
    first_seen double precision NOT NULL DEFAULT extract(epoch FROM now()),
    last_seen  double precision NOT NULL DEFAULT extract(epoch FROM now())
);

CREATE TABLE yaoki.register (
    scope text NOT NULL,
    name  text NOT NULL,
    data  bytea NOT NULL,
    at    double precision NOT NULL,
    fence integer NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, name)
) WITH (fillfactor = 50);

CREATE TABLE yaoki.lock (
    no  bigint GENERATED ALWAYS AS IDENTITY,
    key text NOT NULL,
    run text NOT NULL,
    at  double precision NOT NULL,
    PRIMARY KEY (key, run)
);
CREATE INDEX lock_queue ON yaoki.lock (key, no);
CREATE INDEX lock_run ON yaoki.lock (run COLLATE "C");
"""

MIGRATIONS: tuple[str, ...] = (FIRST + GATES + MOVED + FUNCTIONS,)
"""In order; the version of a schema is how many of them it has had."""

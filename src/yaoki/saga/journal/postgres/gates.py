"""Tables beside the runs: limits of queues, pauses, the operators' log, attributes; and the gate of each lane.

A lane's *gate* says who may take from it: 0 everybody, 1 only those who keep its queue's limits, 2 nobody, for it is paused. It
is worked out when a pause or a limit changes, and when a lane is made, so that a claim has one column to look at. Whoever
changes a pause or a limit has the table of lanes to itself, so that no lane is made in between with yesterday's gate.

`place` has a row for each run of a limited queue that somebody has taken up. Nothing removes one when its run ends: whoever
takes from that queue next looks which of them still stand. So a run's end costs nothing, and a dead worker's places free
themselves with its runs.
"""

from __future__ import annotations

GATES = """
CREATE TABLE yaoki.queue (
    name        text PRIMARY KEY,
    concurrency integer,
    per_worker  integer,
    rate        double precision,
    burst       integer,
    tat         double precision NOT NULL DEFAULT 0,
    declared    text NOT NULL DEFAULT '',  -- what the code said last
    by_hand     boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

CREATE TABLE yaoki.place (
    run   bigint PRIMARY KEY,
    queue text NOT NULL,
    owner bigint NOT NULL
);
CREATE INDEX place_queue ON yaoki.place (queue);

CREATE TABLE yaoki.pause (
    kind text NOT NULL,
    name text NOT NULL,
    at   double precision NOT NULL,
    who  text NOT NULL,
    why  text NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE yaoki.operation (
    no     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     double precision NOT NULL,
    action text NOT NULL,
    kind   text NOT NULL,
    name   text NOT NULL,
    who    text NOT NULL,
    why    text NOT NULL,
    data   bytea NOT NULL
);
CREATE INDEX operation_name ON yaoki.operation (name, no);

CREATE TABLE yaoki.attribute (
    run   bigint NOT NULL,
    name  text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (name, value, run)
);
CREATE INDEX attribute_run ON yaoki.attribute (run);

ALTER TABLE yaoki.lane ADD COLUMN gate smallint NOT NULL DEFAULT 0;

CREATE FUNCTION yaoki.gate_of(saga text, queue text) RETURNS smallint LANGUAGE sql AS $$
    SELECT CASE
        WHEN EXISTS (SELECT FROM yaoki.pause p WHERE (p.kind = 'saga' AND p.name = $1) OR (p.kind = 'queue' AND p.name = $2)) THEN 2
        WHEN EXISTS (SELECT FROM yaoki.queue q WHERE q.name = $2
            AND (q.concurrency IS NOT NULL OR q.per_worker IS NOT NULL OR q.rate IS NOT NULL)) THEN 1
        ELSE 0 END::smallint
$$;

CREATE FUNCTION yaoki.set_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.gate := yaoki.gate_of(NEW.saga, NEW.queue);
    RETURN NEW;
END $$;
CREATE TRIGGER lane_gate BEFORE INSERT ON yaoki.lane FOR EACH ROW EXECUTE FUNCTION yaoki.set_gate();
"""

# Before a pause or a limit changes, and after it.
ALONE = "LOCK TABLE yaoki.lane IN SHARE ROW EXCLUSIVE MODE"
GATE_AGAIN = "UPDATE yaoki.lane SET gate = yaoki.gate_of(saga, queue) WHERE gate <> yaoki.gate_of(saga, queue)"

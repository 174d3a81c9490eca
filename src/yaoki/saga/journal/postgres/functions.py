"""Functions in the database: starting a run from SQL, and what keeps an id from being started twice.

    SELECT yaoki.start('book-trip', '{"guest": "Ada"}', id => 'trip-42');   -- in any transaction of yours, by any driver

*An id of the past.* A run that is being moved to `past` has, for a moment, neither a row that the unique index on `run.id` knows
nor one in `past` that an older snapshot can see. A start that waited for the move would make it a second time. So whoever starts a
run by a name of its own looks again *after* its row is in, with a snapshot of that moment: `moved` says cheaply whether there was a
move at all since the statement began.
"""

from __future__ import annotations

# One row: how often runs were moved to `past`. The move and its count commit together.
MOVED = """
CREATE TABLE yaoki.moved (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    times  bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO yaoki.moved DEFAULT VALUES;

-- Called when the rows are in. A volatile function has a snapshot of its own, so it sees a move that they had to wait for.
-- 40001 undoes the statement, and makes its sender send it again.
CREATE FUNCTION yaoki.refuse_past(seen bigint, ids text[]) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    known text;
BEGIN
    IF (SELECT times FROM yaoki.moved) IS DISTINCT FROM seen THEN
        SELECT past.id INTO known FROM yaoki.past WHERE past.id = ANY(ids) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'run % became one of the past while it was started again', known USING ERRCODE = '40001';
        END IF;
    END IF;
    RETURN true;
END $$;
"""

# The insert behind `yaoki.start` and `app.start(connection=...)`. False: a run of this id exists.
# With another isolation than READ COMMITTED a statement has no snapshot of its own; then the lock on `moved` fails with 40001 if
# there was a move since the transaction began, and keeps moves away until it ends.
_START_RUN = """
CREATE FUNCTION yaoki.start_run(id text, saga text, graph text, input bytea, traceparent text, deadline_at double precision,
    due_at double precision, queue text, priority smallint, tenant text, attributes jsonb, named boolean)
    RETURNS boolean LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    at      double precision := extract(epoch FROM clock_timestamp());
    lane_no integer;
    run_no  bigint;
BEGIN
    IF named AND current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM FROM yaoki.moved FOR SHARE;
    END IF;
    IF named AND EXISTS (SELECT FROM yaoki.past p WHERE p.id = start_run.id) THEN
        RETURN false;
    END IF;
    LOOP
        SELECT l.no INTO lane_no FROM yaoki.lane l WHERE (l.saga, l.graph, l.queue, l.priority, l.tenant) =
            (start_run.saga, start_run.graph, start_run.queue, start_run.priority, start_run.tenant);
        EXIT WHEN FOUND;
        INSERT INTO yaoki.lane (saga, graph, queue, priority, tenant) VALUES (saga, graph, queue, priority, tenant)
            ON CONFLICT DO NOTHING;
    END LOOP;
    INSERT INTO yaoki.run AS r (id, saga, graph, state, input, traceparent, created_at, updated_at, deadline_at, lane, due_at)
        VALUES (id, saga, graph, 'running', input, traceparent, at, at, deadline_at, lane_no, coalesce(nullif(due_at, 0), at))
        ON CONFLICT DO NOTHING RETURNING r.no INTO run_no;
    IF run_no IS NULL THEN
        RETURN false;
    END IF;
    IF named AND EXISTS (SELECT FROM yaoki.past p WHERE p.id = start_run.id) THEN
        DELETE FROM yaoki.run r WHERE r.no = run_no;
        RETURN false;
    END IF;
    IF attributes IS NOT NULL THEN
        INSERT INTO yaoki.attribute (run, name, value) SELECT run_no, a.key, a.value FROM jsonb_each_text(attributes) AS a;
    END IF;
    PERFORM pg_notify('yaoki', '');
    RETURN true;
END $$;
"""

# The graph is the one that a program opened last: what `app.start` there would use; so are the queue, and the attributes that are
# fields of the input. Those that a saga computes by a function are only known to programs.
_START = """
CREATE FUNCTION yaoki.start(saga text, input jsonb, id text DEFAULT NULL, queue text DEFAULT NULL, priority integer DEFAULT 5,
    tenant text DEFAULT '', delay double precision DEFAULT 0, attributes jsonb DEFAULT NULL, traceparent text DEFAULT '')
    RETURNS text LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    at     double precision := extract(epoch FROM clock_timestamp());
    known  record;
    run_id text := coalesce(id, yaoki.new_id());
BEGIN
    SELECT d.hash, (g.said ->> 'deadline')::double precision AS deadline, g.said ->> 'queue' AS queue, g.said -> 'attributes' AS attributes INTO known
        FROM yaoki.definition d, LATERAL (SELECT convert_from(d.graph, 'UTF8')::jsonb AS said) g
        WHERE d.saga = start.saga ORDER BY d.last_seen DESC, d.hash LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no worker of this journal has ever known a saga %', saga USING ERRCODE = 'YK404',
            HINT = 'check its name; a definition comes into the journal when a program opens it: yk worker MODULE --db URL';
    END IF;
    IF priority NOT BETWEEN 0 AND 9 OR delay < 0 THEN
        RAISE EXCEPTION 'priority is 0 (first) to 9 (last), and delay is seconds: not % and %', priority, delay USING ERRCODE = '22023';
    END IF;
    attributes := yaoki.attributes_of(known.attributes, input) || coalesce(attributes, '{}');
    IF NOT yaoki.start_run(run_id, saga, known.hash, convert_to(input::text, 'UTF8'), traceparent,
            CASE WHEN known.deadline IS NULL THEN 0 ELSE at + known.deadline END, CASE WHEN delay > 0 THEN at + delay ELSE 0 END,
            coalesce(queue, known.queue, 'default'), priority::smallint, tenant, nullif(attributes, '{}'), id IS NOT NULL) THEN
        IF EXISTS (SELECT FROM yaoki.run r WHERE r.id = run_id AND
                (r.saga <> start.saga OR convert_from(r.input, 'UTF8')::jsonb <> start.input)) THEN
            RAISE EXCEPTION 'run % exists already, with another saga or another input', run_id USING ERRCODE = 'YK403',
                HINT = 'the id of a run is its idempotency key: use another id, or the same input';
        END IF;
    END IF;
    RETURN run_id;
END $$;

-- As `attributes.py` reads fields off an input.
CREATE FUNCTION yaoki.attributes_of(paths jsonb, input jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    found  jsonb := '{}';
    name   text;
    path   text;
    value  jsonb;
BEGIN
    FOR name, path IN SELECT p.key, p.value FROM jsonb_each_text(coalesce(paths, '{}')) AS p LOOP
        value := input #> string_to_array(path, '.');
        IF jsonb_typeof(value) IN ('object', 'array') OR length(value #>> '{}') > 200 THEN
            RAISE EXCEPTION 'attribute % is a text of at most 200 characters, a number, true or false, and not this', name USING ERRCODE = '22023',
                HINT = 'it is the field ' || path || ' of the input';
        END IF;
        IF value IS NOT NULL AND value <> 'null' THEN
            found := found || jsonb_build_object(name, value #>> '{}');
        END IF;
    END LOOP;
    RETURN found;
END $$;

-- RFC 9562, version 7, as the programs make them: later ones sort later, so new rows land beside each other.
CREATE FUNCTION yaoki.new_id() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')
$$;
"""

FUNCTIONS = _START_RUN + _START

"""Which lanes have runs that are due, without asking each of them: there may be as many as tenants.

    head    the runs that are due longest, over all lanes, by one walk along an index (`run_due`). Fewer than HEAD of them: then all that
            are due are known, and with them all lanes that matter. That is so whenever the workers keep up, and an idle look is this alone.
    window  else a number of lanes of each priority, from a random one on: the head may be one tenant's, and the others have their turns too.
            Where there are no more lanes than that, they are all of them.
    hints   a head full of what this worker may not take (paused, of another definition, from a queue that is full), with more lanes than
            a window holds, could hide for long what it may. Then all are asked, now and then (`Claiming.peek`). What a look has found is told
            to the next claim, whose window is another one.

A lane among these gives runs only if it has some that are due, and so many that the others of its priority have their share.
"""

from __future__ import annotations

from yaoki.saga.journal.port import NewRun
from yaoki.saga.journal.postgres.link import Link

HEAD = 100
WINDOW = 100

# What walks through all lanes may cost, as a share of one connection's time.
WALK_SHARE = 0.05
# Lanes that a look, or a walk, tells the next claim of.
FINDS = 64

# The transaction's time, not the clock's: that changes from row to row, so no index could be searched by it.
DUE = "r.owner IS NULL AND r.due_at <= extract(epoch FROM now())::float8"
# Not `EXISTS`: of that the planner may make a walk through all that is due anywhere, to group it by lane.
HAS_DUE = f"CROSS JOIN LATERAL (SELECT FROM yaoki.run r WHERE r.lane = l.no AND {DUE} LIMIT 1) AS has_due"

_COLUMNS = "l.no, l.saga, l.graph, l.queue, l.priority, l.tenant"


def candidates(mine: str, hints: str) -> str:
    """Two parts of a WITH: `head`, and `candidate`, the lanes that may have something. mine: a condition on `l`. hints: a parameter."""
    columns = "l.no, l.queue, l.priority, l.gate"
    return f"""head AS MATERIALIZED (
    SELECT r.lane FROM yaoki.run r WHERE {DUE} AND r.no > 0 ORDER BY r.due_at LIMIT {HEAD}
), candidate AS MATERIALIZED (
    SELECT {columns} FROM (SELECT DISTINCT lane FROM head) AS h JOIN yaoki.lane l ON l.no = h.lane WHERE {mine}
    UNION SELECT {columns} FROM yaoki.lane l WHERE l.no = ANY({hints}::int[]) AND {mine}
    UNION SELECT l.* FROM (SELECT floor(random() * (SELECT max(no) + 1 FROM yaoki.lane))::int AS start) AS s
        CROSS JOIN generate_series(0, 9) AS p CROSS JOIN LATERAL (
            (SELECT {columns} FROM yaoki.lane l WHERE (l.priority, l.no) >= (p, s.start) AND l.priority <= p AND {mine}
                ORDER BY l.priority, l.no LIMIT {WINDOW})
            UNION ALL (SELECT {columns} FROM yaoki.lane l WHERE (l.priority, l.no) < (p, s.start) AND l.priority >= p AND {mine}
                ORDER BY l.priority, l.no LIMIT {WINDOW})
            LIMIT {WINDOW}
        ) AS l WHERE (SELECT count(*) FROM head) = {HEAD}
)"""


def may_take(graphs: str, queues: str) -> str:
    """The condition on a lane `l` that it is for this worker. graphs, queues: parameters; NULL: all."""
    return f"({graphs}::text[] IS NULL OR l.graph = ANY({graphs})) AND ({queues}::text[] IS NULL OR l.queue = ANY({queues}))"


# What an idle worker asks once a second: reads only, so it costs no commit.
PEEK = f"""
WITH {candidates(f"l.gate <> 2 AND {may_take('$1', '$2')}", "'{}'")}, due AS MATERIALIZED (SELECT l.no, l.gate FROM candidate l {HAS_DUE})
SELECT EXISTS (SELECT FROM due WHERE gate = 0) AS due, EXISTS (SELECT FROM due WHERE gate = 1) AS limited,
    CASE WHEN (SELECT count(*) FROM head) = {HEAD} THEN ARRAY(SELECT no FROM due LIMIT {FINDS}) ELSE '{{}}' END AS found,
    (SELECT count(*) FROM head) = {HEAD} AND (SELECT count(*) FROM (SELECT FROM yaoki.lane LIMIT {WINDOW} + 1) AS few) > {WINDOW} AS hides,
    EXISTS (SELECT FROM yaoki.request) AS asked, (SELECT coalesce(max(no), 0) FROM yaoki.operation) AS news"""
# Lanes with these gates that have something, wherever they are.
WALK = f"SELECT l.no, l.gate FROM yaoki.lane l {HAS_DUE} WHERE l.gate = ANY($3::int[]) AND {may_take('$1', '$2')} LIMIT {FINDS}"

NEW_LANES = """
INSERT INTO yaoki.lane (saga, graph, queue, priority, tenant)
SELECT DISTINCT * FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::text[]) AS l ORDER BY 2, 3, 4, 5, 1
ON CONFLICT DO NOTHING"""
_LANES = f"SELECT {_COLUMNS} FROM yaoki.lane l WHERE l.no = ANY($1::int[])"
_NUMBERS = f"""
SELECT {_COLUMNS} FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::text[]) AS n(saga, graph, queue, priority, tenant)
JOIN yaoki.lane l ON (l.saga, l.graph, l.queue, l.priority, l.tenant) = (n.saga, n.graph, n.queue, n.priority, n.tenant)"""

Lane = tuple[str, str, str, int, str]
"""saga, graph, queue, priority, tenant: what may be claimed together."""


def lane_of(run: NewRun) -> Lane:
    return (run.saga, run.graph, run.queue, run.priority, run.tenant)


class KnownLanes:
    """The lanes that this worker has met; a lane never changes its number.

    Attributes:
        numbers: by what they are. queues: by number.
    """

    def __init__(self) -> None:
        self.numbers: dict[Lane, int] = {}
        self.queues: dict[int, str] = {}

    async def know(self, lanes: set[Lane], link: Link) -> None:
        """Have the numbers of these; make those that are not there yet."""
        if missing := sorted(lanes - self.numbers.keys()):
            columns = [list(each) for each in zip(*missing, strict=True)]
            await link.execute(NEW_LANES, *columns)
            self._keep(await link.fetch(_NUMBERS, *columns))

    async def look_up(self, numbers: set[int], link: Link) -> None:
        """Have what is behind these numbers."""
        if missing := sorted(numbers - self.queues.keys()):
            self._keep(await link.fetch(_LANES, missing))

    def _keep(self, rows: list[tuple[int, str, str, str, int, str]]) -> None:
        for no, saga, graph, queue, priority, tenant in rows:
            self.numbers[saga, graph, queue, priority, tenant] = no
            self.queues[no] = queue

"""A service that browns out, and its clients: how long after the brown-out until the callers are served again?

    800 calls/s from n clients ──▶ one server: a queue, 1 000 requests/s; 300/s for 15 s, then 1 000/s again

A caller waits one second for each attempt; the server does not know when it has given up, and works on. What a client does
about a failure is decided by the library's own objects (retry decider, budget, circuit, shedder), or by the rules of a peer
written down here from its documents. Time is virtual, the rest is arithmetic: a first-in-first-out queue needs no events,
because the instant at which a request is done follows from the work in front of it.

`load` scales calls, capacity and clients alike: a tenth of everything recovers in the same number of seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from random import Random

from yaoki.errors import AttemptTimeoutError, ThrottledError
from yaoki.policies import backoff
from yaoki.policies.breaker import breaker
from yaoki.policies.budget import Budget, FadingBudget
from yaoki.policies.circuit import Circuit, Refusal
from yaoki.policies.classify import THROTTLED, classify
from yaoki.policies.retry import Attempts, RetryDecider
from yaoki.policies.shedding import Shedder, Verdicts, Waiter
from yaoki.policies.throttling import Throttle

OFFERED_PER_S, BEARS_PER_S, DIM = 800.0, 1000.0, 0.3
BEGINS_S, LASTS_S = 15.0, 15.0
PATIENCE_S = 1.0
BACK = 0.9  # of the calls of each second answered in time: then the service is back

TIMED_OUT = AttemptTimeoutError("no answer")
TIMED_OUT_MEANS = classify(TIMED_OUT)
TURNED_AWAY = ThrottledError("the server's queue is full")


# ── budgets of peers, by their documents; the same two methods as `Budget` ───────────────────────────────────────────


class BotocoreQuota:
    """500 tokens; a retry costs 5, 10 after a timeout; a success gives back the last cost, or 1."""

    def __init__(self) -> None:
        self.tokens, self._last = 500, 0

    def withdraw(self) -> bool:
        if self.tokens < 10:
            return False
        self.tokens -= 10
        self._last = 10
        return True

    def deposit(self) -> None:
        self.tokens = min(500, self.tokens + (self._last or 1))
        self._last = 0


class GrpcTokens:
    """gRFC A6: at most 10; a failure costs 1, a success gives 0.1; retry only above half."""

    def __init__(self) -> None:
        self.tokens = 10.0

    def withdraw(self) -> bool:
        self.tokens = max(0.0, self.tokens - 1.0)
        return self.tokens > 5.0

    def deposit(self) -> None:
        self.tokens = min(10.0, self.tokens + 0.1)


class Floor:
    """A tenth of the calls and, as Finagle has it, ten retries a second on top, for each client."""

    def __init__(self) -> None:
        self.bucket = Budget(0.1, cap=100, start=100)
        self.now, self.since, self.left = 0.0, 0.0, 10.0

    def withdraw(self) -> bool:
        self.left = min(10.0, self.left + (self.now - self.since) * 10.0)
        self.since = self.now
        if self.left >= 1.0:
            self.left -= 1.0
            return True
        return self.bucket.withdraw()

    def deposit(self) -> None:
        self.bucket.deposit()


class Fading(FadingBudget):
    """Ours, by the simulation's clock."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(0.1, fade=30.0)

    def _now(self) -> float:
        return self.now

    def earned_in_a_day(self, calls_per_s: float) -> None:
        """What comes in is what fades."""
        self.tokens = min(self.cap, self.ratio * calls_per_s * self.fade)


# ── what is compared ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Plan:
    """One row of the table. `budget`, `circuit` and `throttle` make a client's own."""

    name: str
    attempts: int = 4
    budget: Callable[[], Budget | BotocoreQuota | GrpcTokens | Floor] | None = None
    circuit: Callable[[], Circuit] | None = None
    throttle: Callable[[], Throttle] | None = None
    queue_s: float = inf       # the server turns away what would wait longer
    sheds: bool = False        # the server has a `Shedder`


def _circuit() -> Circuit:
    return breaker(failure_rate=0.5, window=30.0, minimum=20, open_for=10.0).circuit


PLANS = {plan.name: plan for plan in (
    Plan("no retry", attempts=1),
    Plan("3 retries, full jitter"),
    Plan("10 % budget, bucket starts full", budget=lambda: Budget(0.1, cap=10, start=10)),
    Plan("10 % budget, starts nearly empty (ours)", budget=lambda: Budget(0.1)),
    Plan("ours with fade=30, after a day without a failure", budget=Fading),
    Plan("10 % budget, starts empty", budget=lambda: Budget(0.1, start=0)),
    Plan("botocore's quota", budget=BotocoreQuota),
    Plan("a floor of 10 retries/s per client", budget=Floor),
    Plan("gRPC A6", budget=GrpcTokens),
    Plan("breaker per client", circuit=_circuit),
    Plan("throttle per client", throttle=lambda: Throttle(window_s=30.0)),
    Plan("3 retries and a server queue bounded at 0.5 s", queue_s=0.5),
    Plan("3 retries and our load shedding", sheds=True),
)}


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Queue:
    """First in, first out. `done` of a request is known when it arrives."""

    def __init__(self, bears_per_s: float, queue_s: float) -> None:
        self.bears_per_s = bears_per_s
        self.most = queue_s * bears_per_s
        self.finished = 0.0  # work, in requests, at which the last one in the queue is done

    def work(self, now: float) -> float:
        """Requests that a server without a pause would have done until `now`."""
        dim_s = min(max(now - BEGINS_S, 0.0), LASTS_S)
        return (now - dim_s * (1.0 - DIM)) * self.bears_per_s

    def when(self, work: float) -> float:
        """The instant at which that much is done."""
        at = work / self.bears_per_s
        if at <= BEGINS_S:
            return at
        dim = (work - BEGINS_S * self.bears_per_s) / (self.bears_per_s * DIM)
        return BEGINS_S + dim if dim <= LASTS_S else at + LASTS_S * (1.0 - DIM)

    def arrive(self, now: float, rng: Random) -> float | None:
        """When the answer will be there, or None: turned away."""
        done = self.work(now)
        if self.finished - done > self.most:
            return None
        self.finished = max(self.finished, done) + rng.expovariate(1.0)
        return self.when(self.finished)


@dataclass
class Client:
    """What one client process remembers."""

    budget: Budget | BotocoreQuota | GrpcTokens | Floor | None
    circuit: Circuit | None
    throttle: Throttle | None


class Call:
    __slots__ = ("attempted_at", "began_s", "client", "past", "permit", "waiting")

    def __init__(self, client: int, began_s: int) -> None:
        self.client = client
        self.began_s = began_s
        self.past: Attempts | None = None
        self.permit: object = None
        self.attempted_at = 0.0
        self.waiting = False  # an answer to the attempt under way is still of use


@dataclass
class World:
    """One run. `goodput[s]`: share of the calls begun in second s that were answered in the end."""

    plan: Plan
    clients: int
    load: float = 1.0
    seed: int = 1
    horizon_s: float = 355.0
    sent: int = 0
    goodput: list[float] = field(default_factory=list)

    def run(self) -> float | None:
        """Seconds from the end of the brown-out until the callers are served again; None: not within the horizon."""
        self._rng = Random(self.seed)
        self._events: list[tuple[float, int, str, Call, object]] = []
        self._count = 0
        self._clients: dict[int, Client] = {}
        self._retry = RetryDecider(self.plan.attempts, backoff.exponential(0.05, cap=2.0, jitter="full"), on=None,
                                   idempotent=True, nested=False)
        self._queue = Queue(BEARS_PER_S * self.load, self.plan.queue_s)
        self._shedder: Shedder[Call] | None = Shedder() if self.plan.sheds else None
        seconds = int(self.horizon_s)
        asked, served = [0] * (seconds + 1), [0] * (seconds + 1)
        arrival = self._rng.expovariate(OFFERED_PER_S * self.load)
        while arrival < self.horizon_s:
            if self._events and self._events[0][0] <= arrival:
                now, _, what, call, detail = heappop(self._events)
                if getattr(self, f"_{what}")(now, call, detail):
                    served[call.began_s] += 1
                continue
            asked[int(arrival)] += 1
            self._attempt(arrival, Call(self._rng.randrange(self.clients), int(arrival)), None)
            arrival += self._rng.expovariate(OFFERED_PER_S * self.load)
        self.goodput = [good / max(1, all_) for good, all_ in zip(served, asked, strict=True)][:seconds]
        return self._back()

    def _back(self) -> float | None:
        """The first second from which on nine calls in ten are answered, to the end (in the mean of each three seconds)."""
        ended = int(BEGINS_S + LASTS_S)
        last_bad = max((second for second in range(ended, len(self.goodput) - 8)
                        if sum(self.goodput[second:second + 3]) / 3 < BACK), default=ended - 1)
        back = last_bad + 1 - ended
        return None if back > len(self.goodput) - ended - 10 else float(back)  # the last calls are not over yet

    def _at(self, when: float, what: str, call: Call, detail: object = None) -> None:
        self._count += 1
        heappush(self._events, (when, self._count, what, call, detail))

    def _of(self, call: Call) -> Client:
        found = self._clients.get(call.client)
        if found is None:
            plan = self.plan
            found = self._clients[call.client] = Client(*(make() if make else None for make in (plan.budget, plan.circuit, plan.throttle)))
            if isinstance(found.budget, Fading):
                found.budget.earned_in_a_day(OFFERED_PER_S * self.load / self.clients)
        return found

    # ── a client ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _attempt(self, now: float, call: Call, _: object) -> bool:
        client = self._of(call)
        try:
            if client.circuit is not None:
                call.permit = client.circuit.admit(now)
            if client.throttle is not None:
                client.throttle.admit(now, self._rng)
        except (Refusal, ThrottledError):
            return False  # refused on this side: the caller gets an error at once
        self.sent += 1
        call.attempted_at, call.waiting = now, True
        if self._shedder is not None:
            self._follow(self._shedder.arrive(call, now, limit=1)[1], now)
            if call.waiting:
                self._at(now + PATIENCE_S, "timed_out", call, now)
            return False
        done = self._queue.arrive(now, self._rng)
        if done is None:
            self._failed(now, call, TURNED_AWAY)
        elif done <= now + PATIENCE_S:
            self._at(done, "answered", call)
        else:
            self._at(now + PATIENCE_S, "timed_out", call, now)
        return False

    def _answered(self, now: float, call: Call, _: object) -> bool:
        call.waiting = False
        client = self._of(call)
        if client.circuit is not None:
            client.circuit.succeeded(call.permit, now, now - call.attempted_at, self._rng)
        if client.throttle is not None:
            client.throttle.accepted()
        if client.budget is not None:
            if isinstance(client.budget, Fading):
                client.budget.now = now
            client.budget.deposit()
        return True

    def _timed_out(self, now: float, call: Call, began: object) -> bool:
        if call.waiting and call.attempted_at == began:
            self._failed(now, call, TIMED_OUT)
        return False

    def _failed(self, now: float, call: Call, error: Exception) -> None:
        call.waiting = False
        client = self._of(call)
        if client.circuit is not None:
            client.circuit.failed(call.permit, now, self._rng)
        if client.throttle is not None:
            client.throttle.refused()
        if isinstance(client.budget, Floor | Fading):
            client.budget.now = now
        if call.past is None:
            call.past = Attempts(now)
        call.past.made += 1
        failure = TIMED_OUT_MEANS if error is TIMED_OUT else THROTTLED
        if not self._retry_verdict(call, failure, now, client):
            self._at(now + call.past.delay_s, "attempt", call)

    def _retry_verdict(self, call: Call, failure: object, now: float, client: Client) -> str:
        error = TIMED_OUT if failure is TIMED_OUT_MEANS else ConnectionError()
        return self._retry.after(call.past, error, failure, now=now, scope=(inf, 0), budget=client.budget, rng=self._rng)

    # ── a server with load shedding: one request at a time, each a thousandth of a second ────────────────────────────

    def _follow(self, verdicts: Verdicts[Call], now: float) -> None:
        for waiter in verdicts.run:
            dim = BEGINS_S <= now < BEGINS_S + LASTS_S
            service_s = self._rng.expovariate(BEARS_PER_S * self.load * (DIM if dim else 1.0))
            self._at(now + service_s, "served", waiter.ticket, (waiter, waiter.ticket.attempted_at, service_s))
        for waiter, _ in verdicts.refuse:
            if waiter.ticket.waiting and waiter.ticket.attempted_at == waiter.at:
                self._failed(now, waiter.ticket, TURNED_AWAY)

    def _served(self, now: float, call: Call, detail: tuple[Waiter[Call], float, float]) -> bool:
        _, attempted_at, service_s = detail
        self._follow(self._shedder.ended(now, limit=1, service_s=service_s), now)
        return call.waiting and call.attempted_at == attempted_at and self._answered(now, call, None)

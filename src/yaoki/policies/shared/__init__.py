"""Circuit breakers that a fleet shares: votes with a quorum, orders of people and health checks, in a store of your choice.

    flights_breaker = breaker(failure_rate=0.5)
    with share(flights_breaker, "redis://localhost/0", service="flights", quorum=0.5):
        ...                                       # one background thread; the closed path never reads the store

One bad node must not silence the fleet, so what is shared is not the state but *votes*: each node says whether its own
breaker is open, with a time to live, and a node opens when its own is open or when enough others are (`quorum`). Beside the
votes there is at most one *order* a service, `{service, state, ttl}`: set by hand (`yk deps trip`) or by a health check.

Every entry has a time to live, written with it and checked when it is read, by the store's clock. When the store fails, the
last view runs out and each node is on its own, as without sharing.

    view.py     what the store holds, and the decider: what should this node's breaker do?
    keeper.py   the thread that keeps the two in step
    health.py   a check that opens and closes, by one elected checker
    stores/     memory, sqlite, redis, dynamodb, postgres: one port

Why votes: sharing the state was asked for in Polly (issues 215 and 287) and left out for this reason.
"""

from yaoki.policies.shared.health import HealthCheck
from yaoki.policies.shared.keeper import Keeper, share
from yaoki.policies.shared.stores import Store, store_at
from yaoki.policies.shared.view import Fleet, Order, View, Vote

__all__ = ["Fleet", "HealthCheck", "Keeper", "Order", "Store", "View", "Vote", "share", "store_at"]

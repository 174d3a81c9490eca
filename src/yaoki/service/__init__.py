"""One downstream by name: its policy, its numbers, its fault point.

    flights = Service("flights", policy=pipeline(deadline(5.0), retry(4), breaker(), timeout(1.0)))

    reply = await flights.call(book, trip, idempotent=True)       # or, for a plain function, without await

    @flights                                                      # or as a decorator
    async def seats(date: str) -> int: ...

Every attempt goes *policy → fault point → transport*:

    meter   counts the call, its attempts and its latency           (outermost)
    policy  as given
    faults  asks, only while somebody has installed a `Decide`, whether this attempt shall fail on purpose
    fn      the transport                                            (innermost)
"""

from yaoki.service.meter import Numbers
from yaoki.service.points import Decide, Fault, FaultPoints, Point, faults
from yaoki.service.service import Service, named, services

__all__ = ["Decide", "Fault", "FaultPoints", "Numbers", "Point", "Service", "faults", "named", "services"]

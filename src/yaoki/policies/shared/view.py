"""What a fleet knows of one service, and what one node makes of it. A decider.

    own breaker open on its own evidence     ─▶ vote open, until its open time is over and no probe is under way
    enough other nodes vote open             ─▶ open here too, as long as they do
    an order (by hand, by a health check)    ─▶ do as it says; when it is withdrawn or runs out, decide for oneself again
    open time over                           ─▶ one node of the fleet probes; the others wait for what it finds
"""

from __future__ import annotations

import msgspec

from yaoki.policies.circuit import FORCED, Change, Circuit, State

# Orders and votes live this many refreshes: two may get lost before anybody notices.
LIVES = 3


class Vote(msgspec.Struct, frozen=True):
    """One node's own verdict. `left_s`: seconds that it is still valid."""

    node: str
    is_open: bool
    reason: str
    left_s: float


class Order(msgspec.Struct, frozen=True):
    """What somebody decided for all nodes. state: forced_open, disabled, metrics_only."""

    state: State
    who: str
    why: str
    left_s: float


class View(msgspec.Struct, frozen=True):
    """What the store holds of one service, without what has run out."""

    service: str
    votes: tuple[Vote, ...] = ()
    order: Order | None = None


class Fleet:
    """Decides what this node's circuit does about a view. Touches only the circuit it is given.

    Args:
        node: this node's name.
        quorum: nodes that must have it open before this one follows: a number of at least 1, or a share in (0, 1) of the
            nodes that vote (and then never fewer than two, for one node is not a fleet).
    """

    def __init__(self, node: str, quorum: float) -> None:
        self.node = node
        self.quorum = quorum
        self._ordered: State | None = None
        self._followed_epoch = -1  # the circuit's epoch when it was opened because of others
        self._probing_epoch = -1  # ... and when the fleet's probe was won

    def needed(self, voters: int) -> int:
        """How many open votes make this node follow."""
        if self.quorum >= 1:
            return int(self.quorum)
        return max(2, -int(-self.quorum * voters // 1))

    def own_vote(self, circuit: Circuit, now: float) -> tuple[bool, str]:
        """Is it open on its own evidence, and why?

        Following others is no evidence, or votes would keep each other alive; nor is it to probe for them. Evidence ends with the
        open time: or nodes without traffic, whose breakers nobody asks any more, would keep all others shut for ever.
        """
        follows = circuit.epoch == self._followed_epoch + (circuit.state == "half_open")
        is_open = not follows and circuit.is_against(now)
        return is_open, circuit.reason if is_open else ""

    def apply(self, view: View, circuit: Circuit, now: float) -> Change | None:
        """Bring the circuit in line with the view."""
        if view.order is not None:
            return self._obey(view.order, circuit, now)
        if self._ordered is not None:
            change = circuit.force("closed", "the order was withdrawn or ran out", now) if circuit.state == self._ordered else None
            self._ordered = None
            return change
        return self._follow(view, circuit, now)

    def _obey(self, order: Order, circuit: Circuit, now: float) -> Change | None:
        if circuit.state in FORCED and self._ordered is None:
            return None  # set by hand in this very process: whoever is nearest decides
        self._ordered = order.state
        return circuit.force(order.state, f"{order.why or 'ordered'} ({order.who})" if order.who else order.why, now)

    def _follow(self, view: View, circuit: Circuit, now: float) -> Change | None:
        others = [vote for vote in view.votes if vote.is_open and vote.node != self.node]
        if len(others) < self.needed(len({*(vote.node for vote in view.votes), self.node})):
            if circuit.state == "open" and circuit.epoch == self._followed_epoch:
                # It was open because of others only, and they have closed: this node knows nothing against the service.
                return circuit.force("closed", "fewer nodes than the quorum have it open", now)
            return None
        if circuit.state in ("open", "half_open") and circuit.epoch != self._followed_epoch:
            return None  # open on its own evidence already
        until_s = min(max(vote.left_s for vote in others), circuit.open_for_s)
        change = circuit.open_now(f"open at {len(others)} of {len(view.votes)} nodes: {others[0].reason}", until_s, now)
        if circuit.state == "open":
            self._followed_epoch = circuit.epoch
        return change

    def wants_to_probe(self, circuit: Circuit, now: float, within_s: float) -> bool:
        """Will the open time be over before the next refresh? Then this node must first win the fleet's probe.

        Once won, it is not asked for again while this opening lasts: a node without traffic must not keep it from others.
        """
        return circuit.state == "open" and circuit.open_until <= now + within_s and circuit.epoch != self._probing_epoch

    def won_probe(self, circuit: Circuit) -> None:
        """From here on the circuit goes half-open by itself."""
        self._probing_epoch = circuit.epoch

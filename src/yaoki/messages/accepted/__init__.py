"""`202 Accepted`: take work in, answer at once, and say later what became of it.

    endpoint = accepted(Orders(app, OrderPlaced, handler="reserve"), path="/orders")      # ASGI; `.wsgi()` for WSGI
"""

from yaoki.messages.accepted.asgi import Accepted, accepted
from yaoki.messages.accepted.audited import lost_by
from yaoki.messages.accepted.work import HandlerWork, SagaWork, State, Status, Work

__all__ = ["Accepted", "HandlerWork", "SagaWork", "State", "Status", "Work", "accepted", "lost_by"]

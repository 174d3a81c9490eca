"""Sagas with no one in charge: each service sees what happens and does its part, by the same definition and machine."""

from yaoki.messages.choreography.joining import participate
from yaoki.messages.choreography.monitor import Monitor, RunView
from yaoki.messages.choreography.telling import cancel, resolve, signal, start

__all__ = ["Monitor", "RunView", "cancel", "participate", "resolve", "signal", "start"]

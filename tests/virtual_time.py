"""Virtual time for our own tests: what `yaoki.testing` gives to everybody's."""

from yaoki.testing import Clock, VirtualLoop, run

__all__ = ["Clock", "VirtualLoop", "run"]

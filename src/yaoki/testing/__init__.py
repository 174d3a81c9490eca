"""What tests of programs that use Yaoki need: virtual time, scripted failures, and what a policy would do.

    from yaoki.testing import Clock, plan, run

    def test_gives_up_after_three():
        seen = plan(my_policy, [ConnectionRefusedError()] * 9)
        assert (seen.attempts, seen.waits) == (3, [...])          # nothing slept

    def test_trip():
        run(main())                                                # an event loop on which hours take no time

Everything is scoped to a test, a task or a thread; nothing is switched for the whole process, so tests may run beside
each other. Faults in a service's calls are scripted with `faults` (see `yaoki.service.Fault`).
"""

from yaoki.service import Fault, faults
from yaoki.testing.clock import Clock, VirtualLoop, run
from yaoki.testing.planning import Plan, Took, plan

__all__ = ["Clock", "Fault", "Plan", "Took", "VirtualLoop", "faults", "plan", "run"]

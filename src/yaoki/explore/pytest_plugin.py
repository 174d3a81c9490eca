"""pytest runs scenarios: each `@scenario` of a test module is a test, and a failure is its story.

    @scenario(invariants=[no_charge_without_seat])
    async def test_booking(world): ...                  # a test item of its own

    def test_trip(explore):                             # or by hand, in any test
        explore(book_trip, input=Trip("ann"), faults=2)

    pytest --yaoki-faults 2                             # every pair, in CI
    pytest test_booking.py --yaoki-replay 'yk1:...'     # only the execution that failed

Inert when unused: nothing of the explorer is imported before a scenario is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from yaoki.explore.report import Report


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("yaoki", "exploring scenarios (yaoki)")
    group.addoption("--yaoki-faults", type=int, default=1, metavar="N", help="the most faults in one execution (default: 1)")
    group.addoption("--yaoki-budget", type=float, default=None, metavar="S", help="seconds for each scenario (default: all of it)")
    group.addoption("--yaoki-seed", type=int, default=0, metavar="N", help="seed of randomness inside (default: 0)")
    group.addoption("--yaoki-replay", default=None, metavar="TOKEN", help="run only the execution that this token names")
    parser.addini("yaoki_corpus", "file that keeps counterexamples, which are run first next time", default="")


def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> pytest.Item | None:
    """A scenario defined in this module, whatever its name; an imported one is tested where it is defined."""
    if type(obj).__module__ != "yaoki.explore.scenarios" or type(obj).__name__ != "Scenario":
        return None
    main: Any = obj.main  # type: ignore[attr-defined]
    if getattr(main, "__module__", None) != getattr(getattr(collector, "obj", None), "__name__", None):
        return None
    return ScenarioItem.from_parent(collector, name=name, scenario=obj)


class BrokenError(Exception):
    """A scenario that does not hold; its text is the story."""


class ScenarioItem(pytest.Item):
    """One scenario, explored."""

    def __init__(self, *, scenario: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.scenario = scenario

    def runtest(self) -> None:
        wrong = _run(self.config, self.scenario, self.user_properties.append)
        if wrong:
            raise BrokenError(wrong)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The story and how to replay it, not a traceback through the explorer."""
        if isinstance(excinfo.value, BrokenError):
            return f"{excinfo.value}\n\nreproduce: pytest {self.nodeid!r} --yaoki-replay TOKEN"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        code = getattr(self.scenario.main, "__code__", None)
        return self.path, code.co_firstlineno - 1 if code else None, self.name


def _run(config: pytest.Config, scenario: Any, record: Callable[[tuple[str, object]], object]) -> str:
    """Explore, or replay; what is wrong as text, or ""."""
    from yaoki.explore.exploring import explore, replay  # noqa: PLC0415  only now it is needed

    token = config.getoption("--yaoki-replay")
    if token:
        run, story = replay(scenario, token)
        return story.text() if run.violations else ""
    corpus = config.getini("yaoki_corpus")
    report = explore(scenario, faults=config.getoption("--yaoki-faults"), budget=config.getoption("--yaoki-budget"),
                     seed=config.getoption("--yaoki-seed"), corpus=config.rootpath / corpus if corpus else None)
    _record(report, record)
    return "" if report.ok else report.text(matrix=False)


def _record(report: Report, record: Callable[[tuple[str, object]], object]) -> None:
    """For JUnit: `<properties>` of the test case."""
    record(("yaoki.executions", report.executions))
    record(("yaoki.faults", report.depth))
    record(("yaoki.seed", report.settings.seed))
    record(("yaoki.violations", report.found))
    for story in report.stories:
        record(("yaoki.replay", story.token))


@pytest.fixture(name="explore")
def explore_fixture(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """`yaoki.explore.explore`, which fails the test when an invariant is broken, and takes its defaults from the options."""

    def explore(target: Any, **settings: Any) -> Any:
        from yaoki.explore import exploring  # noqa: PLC0415  as above

        config = request.config
        token = config.getoption("--yaoki-replay")
        if token:
            settings = {name: value for name, value in settings.items() if name not in {"faults", "budget", "seed", "kinds", "most", "jobs"}}
            run, story = exploring.replay(target, token, **settings)
            if run.violations:
                pytest.fail(story.text(), pytrace=False)
            return run
        for name in ("faults", "budget", "seed"):
            settings.setdefault(name, config.getoption(f"--yaoki-{name}"))
        report = exploring.explore(target, **settings)
        _record(report, request.node.user_properties.append)
        if not report.ok:
            pytest.fail(report.text(matrix=False), pytrace=False)
        return report

    return explore

"""Several policies as one, outermost first, fused into one function.

    guarded = pipeline(
        deadline(5.0),                          # seconds for the whole call, all attempts included
        retry(4, backoff.exponential(0.05)),
        breaker(failure_rate=0.5),
        bulkhead(50, queue=100),
        timeout(1.0),                           # seconds for one attempt
    )

How a policy is written, and what the fused function looks like: `policy.py` and `fuse.py` beside this file.
`explain()` draws the order and says what is risky about it, and why.
"""

from __future__ import annotations

from math import inf

from yaoki.errors import ConfigError
from yaoki.policies import fuse
from yaoki.policies.policy import Finding, Policy, Site


class Pipeline(Policy):
    """Policies around a call, outermost first. Itself a policy, so pipelines nest (and are flattened).

    Raises:
        ConfigError: something that is not a policy was given.
    """

    kind = "pipeline"

    def __init__(self, *policies: Policy) -> None:
        for policy in policies:
            if not isinstance(policy, Policy):
                raise ConfigError(f"pipeline() got {policy!r}, which is not a policy.",
                                  do="Pass policies such as retry(3), outermost first; the function is decorated afterwards.")
        self._policies = tuple(inner for policy in policies for inner in policy.policies)

    @property
    def policies(self) -> tuple[Policy, ...]:
        return self._policies

    def describe(self) -> str:
        return f"pipeline({', '.join(policy.describe() for policy in self._policies)})"

    def longest_s(self, inner_s: float) -> float:
        for policy in reversed(self._policies):
            inner_s = policy.longest_s(inner_s)
        return inner_s

    def calls_per_call(self) -> int:
        made = 1
        for policy in self._policies:
            made *= policy.calls_per_call()
        return made

    def sorted(self) -> Pipeline:
        """The same policies in the default order (`policy.ORDER`)."""
        return Pipeline(*sorted(self._policies, key=lambda policy: policy.order))

    def findings(self, site: Site | None = None) -> list[Finding]:
        """What the lint has to say, policy by policy, outermost first."""
        site = site or Site()
        found: list[Finding] = []
        for index, policy in enumerate(self._policies):
            found += policy.lint(self._policies[:index][::-1], self._policies[index + 1:], site)
        return found

    def explain(self, site: Site | None = None) -> str:
        """The pipeline drawn, its worst case, and what is risky about it."""
        lines = [f"{'  ' * depth}{'└ ' if depth else ''}{policy.describe()}" for depth, policy in enumerate(self._policies)]
        lines.append(f"{'  ' * len(self._policies)}└ call")
        longest = self.longest_s(inf)
        lines += ["", f"calls sent for one call: at most {self.calls_per_call()}",
                  f"time for one call: {'not bounded' if longest == inf else f'at most {longest:g} s'}"]
        findings = self.findings(site)
        lines += ["", *(f"! {each.about}: {each.what} {each.do}" for each in findings)] if findings else []
        return "\n".join(lines)

    def source(self, *, is_async: bool = False) -> str:
        """The text of the fused function."""
        return fuse.source(self._policies, Site(is_async=is_async))


def pipeline(*policies: Policy) -> Pipeline:
    """Put `policies` around a call, outermost first, fused into one function. See `Pipeline`."""
    return Pipeline(*policies)

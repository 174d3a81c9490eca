"""What to do when a call fails: each policy alone, or several as one `pipeline`.

Start with `pipeline.py`; how to write a policy is told at the top of `policy.py`.
"""

from yaoki.policies import backoff
from yaoki.policies.breaker import Breaker, breaker
from yaoki.policies.budget import Budget, budget
from yaoki.policies.bulkhead import Bulkhead, bulkhead
from yaoki.policies.classify import Failure, attempts_made, classify, nothing_happened
from yaoki.policies.deadline import Deadline, deadline
from yaoki.policies.pipeline import Pipeline, pipeline
from yaoki.policies.policy import Finding, Policy, Site
from yaoki.policies.retry import Retry, retry
from yaoki.policies.scope import detached, remaining
from yaoki.policies.timeout import Timeout, timeout

__all__ = [
    "Breaker", "Budget", "Bulkhead", "Deadline", "Failure", "Finding", "Pipeline", "Policy", "Retry", "Site", "Timeout",
    "attempts_made", "backoff", "breaker", "budget", "bulkhead", "classify", "deadline", "detached", "nothing_happened",
    "pipeline", "remaining", "retry", "timeout",
]

"""What to do when a call fails: each policy alone, or several as one `pipeline`.

Start with `pipeline.py`; how to write a policy is told at the top of `policy.py`.
"""

from yaoki.policies import backoff
from yaoki.policies.adaptive import AdaptiveLimit, adaptive_limit
from yaoki.policies.breaker import Breaker, breaker
from yaoki.policies.budget import Budget, budget
from yaoki.policies.bulkhead import Bulkhead, bulkhead
from yaoki.policies.cache import Cache, cache
from yaoki.policies.classify import Failure, attempts_made, classify, nothing_happened
from yaoki.policies.deadline import Deadline, deadline
from yaoki.policies.endpoints import Endpoint
from yaoki.policies.failover import Failover, endpoint, failover
from yaoki.policies.fallback import Fallback, fallback
from yaoki.policies.gradient import Gradient2
from yaoki.policies.hedge import Hedge, hedge
from yaoki.policies.limiter import RateLimit, rate_limit
from yaoki.policies.pipeline import Pipeline, pipeline
from yaoki.policies.policy import Finding, Policy, Site
from yaoki.policies.pushed import Pushed
from yaoki.policies.retry import Retry, retry
from yaoki.policies.scope import detached, remaining
from yaoki.policies.single_flight import SingleFlight, single_flight
from yaoki.policies.standard import standard
from yaoki.policies.throttle import ThrottlePolicy, throttle
from yaoki.policies.timeout import Timeout, timeout
from yaoki.policies.vegas import Vegas

__all__ = [
    "AdaptiveLimit", "Breaker", "Budget", "Bulkhead", "Cache", "Deadline", "Endpoint", "Failover", "Failure", "Fallback", "Finding",
    "Gradient2", "Hedge", "Pipeline", "Policy", "Pushed", "RateLimit", "Retry", "SingleFlight", "Site", "ThrottlePolicy", "Timeout",
    "Vegas", "adaptive_limit", "attempts_made", "backoff", "breaker", "budget", "bulkhead", "cache", "classify", "deadline",
    "detached", "endpoint", "failover", "fallback", "hedge", "nothing_happened", "pipeline", "rate_limit", "remaining", "retry",
    "single_flight", "standard", "throttle", "timeout",
]

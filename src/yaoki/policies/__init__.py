"""What to do when a call fails: each policy alone, or several as one `pipeline`.

Start with `pipeline.py`; how to write a policy is told at the top of `policy.py`.
"""

from yaoki.policies.pipeline import Pipeline, pipeline
from yaoki.policies.policy import Finding, Policy, Site
from yaoki.policies.scope import remaining

__all__ = ["Finding", "Pipeline", "Policy", "Site", "pipeline", "remaining"]

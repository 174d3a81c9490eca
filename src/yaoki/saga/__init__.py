"""Operations that finish or undo themselves.

`define` is what users write, `machine` decides (pure), `driver` and `attempt` act for one run, `engine` for all of them,
`journal` keeps them, `participant` is the service's side. Steps that are more than one call: `composing` is what users write for
them, `child` starts sagas, `parts` makes items, alternatives and flows.
"""

from yaoki.effect import Effect
from yaoki.saga.define import Saga, Step
from yaoki.saga.retrying import Retrying

__all__ = ["Effect", "Retrying", "Saga", "Step"]

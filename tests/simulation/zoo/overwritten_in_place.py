"""A program saves its state over the old one; the power fails in the middle."""

import json

from yaoki.explore import FakeFile, Scenario, World

BREAKS = "state_is_one_of_both"
STATES = ({"step": 1, "owes": ["ann"]}, {"step": 2, "owes": ["ann", "bob"]})


def program(*, fixed: bool) -> Scenario:
    file = FakeFile("state")

    def main() -> None:
        for state in STATES:
            data = json.dumps(state).encode()
            if fixed:
                file.replace(data)
            else:
                file.overwrite(data)

    def state_is_one_of_both(world: World) -> str:
        kept = file.durable
        return "" if not kept or kept in {json.dumps(each).encode() for each in STATES} else f"the file holds {kept!r}"

    return Scenario(main, always=[state_is_one_of_both], faults=["crash", "disk.torn"])

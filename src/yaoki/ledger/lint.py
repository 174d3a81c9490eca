"""Read the settings between a DynamoDB stream and its function, and say what will lose records one day. Pure.

Each danger is (name, sentence). None of them is a loss yet; all of them have been one for somebody. Facts: AWS Lambda
Developer Guide, *Using AWS Lambda with Amazon DynamoDB*; a stream keeps records for 24 hours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Danger = tuple[str, str]
FOREVER = -1


def lint_mapping(mapping: Mapping[str, Any]) -> list[Danger]:
    """The dangers in one event-source mapping, as `GetEventSourceMapping` gives it."""
    found: list[Danger] = []
    state = mapping.get("State", "")
    if state != "Enabled":
        found.append(("mapping_off", f"the event-source mapping is {state}: nothing is delivered, and no metric says so"))
    if mapping.get("StartingPosition") == "LATEST":
        found.append(("starts_at_latest", ("the mapping starts at LATEST: if it is ever made anew, all that was written before "
                      "is skipped; make it with TRIM_HORIZON")))
    has_destination = bool(mapping.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination"))
    for setting, words in (("MaximumRetryAttempts", "attempts"), ("MaximumRecordAgeInSeconds", "seconds")):
        limit = mapping.get(setting, FOREVER)
        if limit not in {FOREVER, None} and not has_destination:
            found.append((f"gives_up_{words}", (f"after {limit} {words} a batch is thrown away, and there is no on-failure "
                          "destination that would keep it")))
    retries_for_ever = mapping.get("MaximumRetryAttempts", FOREVER) in {FOREVER, None}
    if retries_for_ever and not mapping.get("BisectBatchOnFunctionError"):
        found.append(("poison_blocks_shard", ("one record that the function cannot process holds up its shard until the stream "
                      "forgets it after 24 hours; bisect batches and set an on-failure destination")))
    if mapping.get("FilterCriteria", {}).get("Filters"):
        found.append(("filters", "the mapping has filter criteria: what they leave out never arrives, on purpose or not"))
    if str(mapping.get("LastProcessingResult", "")).upper().startswith("PROBLEM"):
        found.append(("last_result", f"the mapping's last result was {mapping['LastProcessingResult']!r}"))
    return found


def lint_pipeline(mappings: Sequence[Mapping[str, Any]], *, view: str, concurrency: int | None) -> list[Danger]:
    """The dangers between a stream and a function.

    Args:
        mappings: those of this stream and this function.
        view: what the stream carries (StreamViewType).
        concurrency: the function's reserved concurrency; None: not reserved.
    """
    found: list[Danger] = []
    if not mappings:
        found.append(("no_mapping", "no event-source mapping joins this stream and this function: nothing is delivered"))
    for mapping in mappings:
        found += lint_mapping(mapping)
    if view not in {"NEW_IMAGE", "NEW_AND_OLD_IMAGES"}:
        found.append(("no_new_image", f"the stream carries {view}: a version that is lost cannot be copied from it"))
    if concurrency == 0:
        found.append(("concurrency_zero", "the function's reserved concurrency is 0: it cannot run"))
    return found


def changed_since(mappings: Sequence[Mapping[str, Any]], remembered: str) -> tuple[str, list[Danger]]:
    """(what to remember of the mappings, the danger that they were changed since `remembered`)."""
    seen = ";".join(sorted(f"{each.get('UUID')}@{each.get('LastModified')}" for each in mappings))
    if remembered and seen != remembered:
        return seen, [("mapping_changed", ("the mapping was changed or made anew since the last audit: what was written "
                       "meanwhile may have been skipped"))]
    return seen, []

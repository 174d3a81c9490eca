"""What will lose records one day is said before it does; canaries reach every shard."""

from __future__ import annotations

import random
from typing import Any

import pytest

from yaoki.ledger.lint import changed_since, lint_mapping, lint_pipeline
from yaoki.ledger.sources.aws import plain
from yaoki.ledger.sources.canaries import CANARY, canaries_due, enough_for
from yaoki.ledger.sources.tables import slot_dangers

SOUND: dict[str, Any] = {
    "State": "Enabled", "StartingPosition": "TRIM_HORIZON", "BisectBatchOnFunctionError": True, "MaximumRetryAttempts": 10,
    "DestinationConfig": {"OnFailure": {"Destination": "arn:queue"}}, "LastProcessingResult": "OK"}


def names(mapping: dict[str, Any]) -> list[str]:
    return [name for name, _ in lint_mapping(mapping)]


def test_a_sound_mapping_has_no_dangers() -> None:
    assert lint_pipeline([SOUND], view="NEW_AND_OLD_IMAGES", concurrency=None) == []


@pytest.mark.parametrize(("change", "danger"), [
    ({"State": "Disabled"}, "mapping_off"),
    ({"State": "Disabling"}, "mapping_off"),
    ({"StartingPosition": "LATEST"}, "starts_at_latest"),
    ({"DestinationConfig": {}}, "gives_up_attempts"),
    ({"DestinationConfig": {}, "MaximumRecordAgeInSeconds": 60, "MaximumRetryAttempts": -1}, "gives_up_seconds"),
    ({"MaximumRetryAttempts": -1, "BisectBatchOnFunctionError": False}, "poison_blocks_shard"),
    ({"FilterCriteria": {"Filters": [{"Pattern": "{}"}]}}, "filters"),
    ({"LastProcessingResult": "PROBLEM: Function call failed"}, "last_result"),
])
def test_each_danger_is_named(change: dict[str, Any], danger: str) -> None:
    assert danger in names({**SOUND, **change})


def test_dangers_around_the_mapping() -> None:
    assert [name for name, _ in lint_pipeline([], view="KEYS_ONLY", concurrency=0)] == \
        ["no_mapping", "no_new_image", "concurrency_zero"]


def test_a_mapping_made_anew_is_noticed() -> None:
    first, nothing = changed_since([{"UUID": "a", "LastModified": 1}], "")
    assert nothing == []
    assert changed_since([{"UUID": "a", "LastModified": 1}], first)[1] == []
    assert [name for name, _ in changed_since([{"UUID": "b", "LastModified": 2}], first)[1]] == ["mapping_changed"]


def test_replication_slots_that_lose_changes_are_named() -> None:
    assert slot_dangers("s", active=True, wal_status="reserved", behind_bytes=10) == []
    assert [name for name, _ in slot_dangers("s", active=False, wal_status="lost", behind_bytes=1)] == \
        ["slot_lost:s", "slot_inactive:s"]


def learned(shards: int, rng: random.Random) -> tuple[int, int]:
    """Beat until every shard has a canary; (beats needed, keys written)."""
    opened = [f"shard-{n}" for n in range(shards)]
    homes: dict[str, str] = {}
    keys: dict[str, tuple[str, int]] = {}
    for beat in range(1, 200):
        for key, number in canaries_due(keys, opened).items():
            homes.setdefault(key, rng.choice(opened))
            keys[key] = homes[key], number
        if {shard for shard, _ in keys.values()} == set(opened):
            return beat, len(keys)
    raise AssertionError("some shard never got a canary")


@pytest.mark.parametrize("shards", [1, 2, 8, 50])
def test_every_shard_gets_a_canary_although_nobody_can_choose_its_shard(shards: int) -> None:
    rng = random.Random(shards)
    for _ in range(10):
        beats, keys = learned(shards, rng)
        assert keys <= 3 * enough_for(shards)
        assert beats <= 60


def test_canaries_of_a_shard_that_was_split_are_replaced() -> None:
    keys = {f"{CANARY}0": ("old", 7)}
    due = canaries_due(keys, ["left", "right"])
    assert f"{CANARY}0" not in due
    assert len(due) == 2


def test_two_canaries_a_shard_are_enough() -> None:
    keys = {f"{CANARY}{n}": ("only", 3) for n in range(5)}
    assert canaries_due(keys, ["only"]) == {f"{CANARY}0": 4, f"{CANARY}1": 4}


def test_records_are_given_to_the_function_as_lambda_would() -> None:
    assert plain({"a": {"B": b"\x00\x01"}, "n": [1, {"S": "x"}]}) == {"a": {"B": "AAE="}, "n": [1, {"S": "x"}]}

"""What must hold of the answers that members were given in rollouts, by the rows and the log alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from matinee.canary.store import Rollout
from matinee.config import Settings
from matinee.events.kafka import PartitionConsumer, partitions
from matinee.registry.mlflow import CHAMPION, Registry
from matinee.serving.place import Arm, Rules, Trial, place
from matinee.serving.splits import Splits

SURFACE = "home"
FOLLOWED_S = 2.0
"""How long a replica may take to apply a change of the split."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """An answer that a member was given; `at` and `done` in microseconds: asked and answered."""

    request_id: str
    member_id: str
    version: str
    cell: str
    at: int
    done: int


def books(settings: Settings, bootstrap: str, given: Sequence[Given]) -> dict[str, int]:
    """How many answers are not explained by exactly one exposure and by the split's rows."""
    topic = settings.kafka.exposures_topic
    exposures: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for message in read_all(settings, bootstrap, topic):
        exposures[message["exposure_id"]].append(message)
    rules = rules_over_time(settings)
    missing = unexplained = 0
    for answer in given:
        found = exposures.get(answer.request_id, [])
        told = [(m["member_id"], m["cell"], m["model_version"].rpartition("/")[2]) for m in found]
        missing += told != [(answer.member_id, answer.cell, answer.version)]
        unexplained += (answer.cell, answer.version) not in implied(settings, rules, answer)
    return {
        "answers": len(given),
        "exposures": sum(map(len, exposures.values())),
        "not_one_exposure": missing,
        "not_implied_by_the_split": unexplained,
    }


def read_all(settings: Settings, bootstrap: str, topic: str) -> Iterator[dict[str, Any]]:
    """Every message of a topic."""
    numbers = range(partitions(settings.kafka, bootstrap, topic))
    consumer = PartitionConsumer(settings.kafka, bootstrap, topic, numbers, {})
    ends, at = consumer.end_offsets(), dict.fromkeys(numbers, 0)
    while any(at[number] < ends[number] for number in numbers):
        for message in consumer.poll(5_000, 50):
            at[message.partition] = message.offset + 1
            yield orjson.loads(message.value)
    consumer.close()


def rules_over_time(settings: Settings) -> list[tuple[int, str, Rules]]:
    """From when on which champion and rules were in force, by the rows and the ledger alone; oldest first."""
    splits, registry = Splits(settings), Registry(settings)
    changes: list[tuple[int, str | None, Trial | None]] = []
    for row in splits.rule_history(SURFACE):
        value = row["value"]
        arms = {cell: Arm(**arm) for cell, arm in value["arms"].items()} if value else {}
        changes.append((row["time_us"], None, Trial(salt=value["salt"], arms=arms) if value else None))
    promotions = registry.promotions(settings.serving.model)
    first = min(promotions, key=lambda line: line["time"])["before"] if promotions else None
    champion = first or registry.get(settings.serving.model, CHAMPION).version
    found = [(0, champion, Rules())]
    times = sorted(
        [*changes, *((line["time"], line["version"], None) for line in promotions)], key=lambda c: c[0]
    )
    for at, promoted, trial in times:
        champion = promoted or champion
        rules = found[-1][2] if promoted else Rules(trial=trial)
        found.append((at, champion, rules))
    splits.close()
    return found


def implied(
    settings: Settings, rules: Sequence[tuple[int, str, Rules]], answer: Given
) -> set[tuple[str, str]]:
    """Cells and versions that the rows give the member at the moments a replica may have been at."""
    found = set()
    ends = [at for at, _, _ in rules[1:]] + [answer.done + 1]
    for (begin, champion, held), end in zip(rules, ends, strict=True):
        if begin <= answer.done and end >= answer.at - FOLLOWED_S * 1e6:
            placed = place(answer.member_id, held, model=settings.serving.model, champion=champion)
            assert placed is not None
            found.add(placed)
    return found


def moved(rollout: Rollout, given: Sequence[Given]) -> int:
    """How many members left a cell of the rollout while it went on, or were in both."""
    end = rollout.end.time if rollout.end else 0
    held: dict[str, str] = {}
    broken = set()
    for answer in given:
        before = held.get(answer.member_id)
        if before and answer.cell != before and answer.done <= end:
            broken.add(answer.member_id)
        if answer.cell in rollout.cells:
            held[answer.member_id] = answer.cell
    return len(broken)


def back_within_s(rollout: Rollout, given: Sequence[Given]) -> float:
    """Seconds from the decision that ended the rollout to the last answer that was asked for in its cells."""
    assert rollout.end is not None
    last = max((answer.at for answer in given if answer.cell in rollout.cells), default=0)
    return max(0.0, (last - rollout.end.time) / 1e6)

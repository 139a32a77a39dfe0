"""What is read of one rollout: its place in the topics, and what was counted so far."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from matinee.canary.judge import Samples
from matinee.canary.plan import Measured, Plan, State
from matinee.canary.prometheus import query_range
from matinee.canary.store import Rollout
from matinee.canary.tally import Series, Tally
from matinee.config import Settings
from matinee.errors import InvalidInput
from matinee.schema import Decision

if TYPE_CHECKING:
    from matinee.events.kafka import Message

KEEP_S = 5.0
"""How often the figures are kept: the most that is counted again after a crash."""
ASK_S = 0.5
"""How often the broker is asked where the topics end."""
POLL_EVENTS = 5_000
POLL_LINGER_MS = 20

logger = logging.getLogger(__name__)


class Watch:
    """What is read of one rollout: its place in the topics, and its tally.

    Args:
        kept: what `to_json` gave to another one; None: the topics are read from their ends.

    Attributes:
        said: what was decided last, if anything.
        judged: the step whose analysis was looked at last, and how many of its intervals were judged.
        rejected: messages that could not be read.
    """

    def __init__(
        self, settings: Settings, bootstrap: str, rollout: Rollout, kept: Mapping[str, Any] | None
    ) -> None:
        self.said: Decision | None = None
        self.judged = (0, 0)
        self.rejected = 0
        self._settings = settings
        topics = (settings.kafka.exposures_topic, settings.kafka.events_topic)
        places = kept["places"] if kept else (None, None)
        self._exposures, self._events = (
            _Topic(settings, bootstrap, topic, place) for topic, place in zip(topics, places, strict=True)
        )
        self._goal: tuple[int, Sequence[Mapping[int, int]]] | None = None
        self._asked_ends = self._asked_judge = self._kept = time.monotonic()
        plan = rollout.plan
        self.tally = (
            Tally.from_json(kept["tally"])
            if kept
            else Tally(
                rollout.cells,
                start=time.time_ns() // 1000,
                interval_us=round(plan.interval_s * 1e6),
                settle_us=round(plan.settle_s * 1e6),
            )
        )

    @property
    def due(self) -> bool:
        """Whether the figures should be kept."""
        return time.monotonic() - self._kept > KEEP_S

    def read(self) -> None:
        """Take what has come since; count as settled what was, when both topics were read to their ends.

        Raises:
            Unavailable: the broker does not answer.
        """
        for message in self._exposures.poll():
            self._take(message, exposure=True)
        for message in self._events.poll():
            self._take(message, exposure=False)
        if self._goal is None and time.monotonic() - self._asked_ends > ASK_S:
            now = time.time_ns() // 1000
            self._goal = now, [self._exposures.ends(), self._events.ends()]
            self._asked_ends = time.monotonic()
        if self._goal is not None:
            now, (exposures, events) = self._goal
            if self._exposures.reached(exposures) and self._events.reached(events):
                self.tally.settle(now)
                self._goal = None

    def measured(self, plan: Plan, state: State) -> Measured:
        """What is known now."""
        baseline, canary = self.tally.sides
        return Measured(
            now=time.time_ns() // 1000,
            members=self.tally.members,
            exposures=self.tally.settled,
            baseline=baseline.evidence(),
            canary=canary.evidence(),
            ended=self.ended(plan, state),
        )

    def may_ask(self, plan: Plan, state: State) -> bool:
        """Whether the judge may be asked: an interval has passed since it was last, and where the plan has
        an analysis, another one of it is over than was judged."""
        now = time.monotonic()
        if now - self._asked_judge < plan.interval_s:
            return False
        if plan.schedule and self.judged == (state.step, self.ended(plan, state)):
            return False
        self._asked_judge = now
        return True

    def samples(self, rollout: Rollout) -> dict[str, Samples]:
        """What the judge is given of everything so far: the metrics that the plan names.

        Raises:
            InvalidInput: Prometheus refuses a query.
            Unavailable: Prometheus does not answer.
        """
        return {name: each.samples for name, each in self._series(rollout).items()}

    def windows(self, rollout: Rollout, state: State) -> list[dict[str, Samples]]:
        """What it is given in each interval of the step's analysis that has ended. Raises as `samples`."""
        schedule = rollout.plan.schedule
        assert schedule is not None
        series = self._series(rollout)
        spans = (schedule.window(number + 1) for number in range(self.ended(rollout.plan, state)))
        ends = ([state.step_began + round(second * 1e6) for second in span] for span in spans)
        return [{name: each.within(*pair) for name, each in series.items()} for pair in ends]

    def ended(self, plan: Plan, state: State) -> int:
        """How many intervals of the step's analysis are over and settled; 0 where the plan has none."""
        settled_s = (self.tally.settled_until - state.step_began) / 1e6
        return plan.schedule.ended(settled_s) if plan.schedule else 0

    def _series(self, rollout: Rollout) -> dict[str, Series]:
        plan, tally = rollout.plan, self.tally
        wanted = {metric.name for metric in plan.config.metrics}
        found = {name: each for name, each in tally.series().items() if name in wanted}
        begins = tally.begins(np.arange(tally.intervals))
        sides = zip(rollout.cells, (rollout.baseline, rollout.candidate), strict=True)
        names = [{"cell": cell, "version": version} for cell, version in sides]
        for metric, query in plan.queries.items():
            if metric in wanted:
                control, experiment = (
                    query_range(
                        self._settings.canary.prometheus,
                        Template(query).safe_substitute(side),
                        start=tally.start,
                        interval_us=tally.interval_us,
                        count=tally.intervals,
                    )
                    for side in names
                )
                found[metric] = Series(begins, tally.interval_us, Samples(control, experiment))
        return found

    def figures(self) -> dict[str, Any]:
        """For people: members, settled exposures and what was said last."""
        baseline, canary = self.tally.members
        return {
            "members": {"baseline": baseline, "canary": canary},
            "settled": dict(zip(("baseline", "canary"), self.tally.settled, strict=True)),
            "rejected": self.rejected,
            "said": self.said.reason if self.said else "",
        }

    def to_json(self) -> dict[str, Any]:
        """Its places and its tally, for another one to go on from."""
        self._kept = time.monotonic()
        places = [self._exposures.place(), self._events.place()]
        return {"places": places, "tally": self.tally.to_json()}

    def close(self) -> None:
        """Stop reading."""
        self._exposures.close()
        self._events.close()

    def _take(self, message: Message, *, exposure: bool) -> None:
        try:
            value = orjson.loads(message.value)
            if exposure:
                self.tally.exposure(value)
            else:
                self.tally.outcome(value, message.timestamp_us)
        except (InvalidInput, ValueError, AttributeError) as failure:
            self.rejected += 1
            logger.warning("%s (partition %d, offset %d)", failure, message.partition, message.offset)


class _Topic:
    """A topic and where it is read."""

    def __init__(
        self, settings: Settings, bootstrap: str, topic: str, place: Mapping[str, Any] | None
    ) -> None:
        from matinee.events.kafka import PartitionConsumer, cluster_id, partitions

        kafka = settings.kafka
        numbers = range(partitions(kafka, bootstrap, topic))
        self._cluster = cluster_id(kafka, bootstrap)
        if place is None:
            probe = PartitionConsumer(kafka, bootstrap, topic, numbers, {})
            self._offsets = probe.end_offsets()
            probe.close()
        else:
            same = place["cluster"] == self._cluster
            self._offsets = {int(number): at for number, at in place["offsets"].items()} if same else {}
        self._consumer = PartitionConsumer(kafka, bootstrap, topic, numbers, self._offsets)

    def poll(self) -> list[Message]:
        """What has come, up to `POLL_EVENTS`."""
        messages = self._consumer.poll(POLL_EVENTS, POLL_LINGER_MS)
        if self._consumer.cluster_id != self._cluster:
            self._cluster, self._offsets = self._consumer.cluster_id, {}
        self._offsets.update({message.partition: message.offset + 1 for message in messages})
        return messages

    def ends(self) -> dict[int, int]:
        """Where it ends now."""
        return self._consumer.end_offsets()

    def reached(self, ends: Mapping[int, int]) -> bool:
        """Whether it was read so far."""
        return all(self._offsets.get(partition, 0) >= end for partition, end in ends.items())

    def place(self) -> dict[str, Any]:
        """The cluster and the next offsets."""
        offsets = {str(partition): offset for partition, offset in self._offsets.items()}
        return {"cluster": self._cluster, "offsets": offsets}

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()

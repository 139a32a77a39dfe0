"""A canary that was measured elsewhere, judged from the JSON that Kayenta keeps its metrics in.

The file is a list of metrics, each with `name`, `values.control` and `values.experiment`, a value a step from
the start on, and `scopes.control.stepMillis`. What else Kayenta writes there is let be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matinee.canary.judge import Opinion, Samples, Schedule, analyse, judge, read_config, read_request
from matinee.canary.judge.decide import Mode
from matinee.canary.judge.fields import Fields
from matinee.errors import InvalidInput, NotFound


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A canary's values from start to end.

    Args:
        samples: by metric.
        step_s: between two values of a metric, in seconds; None: not every metric tells the same.
    """

    samples: Mapping[str, Samples]
    step_s: float | None

    def windows(self, schedule: Schedule) -> list[dict[str, Samples]]:
        """What the judgement of each interval that has ended looks at.

        Raises:
            InvalidInput: the values' step is not told, or no interval has ended.
        """
        if self.step_s is None:
            raise InvalidInput("samples: scopes.control.stepMillis is not one number for all metrics")
        steps = max(
            (max(len(each.control), len(each.experiment)) for each in self.samples.values()), default=0
        )
        ended = min(schedule.ended(steps * self.step_s), schedule.count)
        if not ended:
            first = schedule.window(1)[1]
            raise InvalidInput(
                f"samples: {steps} values every {self.step_s:g} s end before the first interval, {first:g} s"
            )
        return [self._between(*schedule.window(number)) for number in range(1, ended + 1)]

    def _between(self, begin_s: float, end_s: float) -> dict[str, Samples]:
        assert self.step_s
        part = slice(max(round(begin_s / self.step_s), 0), max(round(end_s / self.step_s), 0))
        return {
            name: Samples(each.control[part], each.experiment[part]) for name, each in self.samples.items()
        }


def judged(config: Path, samples: Path, *, request: Path | None, mode: Mode, seed: int) -> Opinion:
    """The judge's opinion of a recorded canary.

    Args:
        config: a canary configuration in Kayenta's JSON.
        samples: as told above.
        request: Kayenta's request for an analysis over intervals; None: one judgement of everything.

    Raises:
        NotFound: one of the files cannot be read.
        InvalidInput: one of them is not accepted; the text names the field.
    """
    schedule, thresholds = read_request(_text(request)) if request else (None, {})
    canary, found = read_config(_text(config), **thresholds), read_recorded(samples)
    if schedule is not None:
        windows = found.windows(schedule)
        return Opinion.of(analyse(canary, windows, count=schedule.count, mode=mode, seed=seed), windows)
    judgement = judge(canary, found.samples, mode=mode, seed=seed)
    return Opinion(samples=found.samples, judgement=judgement)


def read_recorded(path: Path) -> Recorded:
    """Read a file of samples.

    Raises:
        NotFound: it cannot be read.
        InvalidInput: it is not as told above; the text names the field.
    """
    try:
        listed = json.loads(_text(path))
    except ValueError as problem:
        raise InvalidInput(f"samples: not JSON: {problem}") from None
    samples: dict[str, Samples] = {}
    steps: set[float | None] = set()
    for each in Fields({"metrics": listed}, "samples").items("metrics"):
        name, values = each.text("name"), each.inner("values")
        if name in samples:
            raise InvalidInput(f"samples: metric {name} stands twice; names are unique")
        sides = (np.array(values.numbers(side), np.float64) for side in ("control", "experiment"))
        samples[name] = Samples(*sides)
        step = each.inner("scopes").inner("control").number("stepMillis", None)
        steps.add(step if step is None or step > 0 else None)
    step = steps.pop() if len(steps) == 1 else None
    return Recorded(samples=samples, step_s=None if step is None else step / 1e3)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as failure:
        raise NotFound(f"{path}: {failure.strerror}") from None

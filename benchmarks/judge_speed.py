"""The canary judge beside a loop over scipy's Mann-Whitney test: 1,000 metrics of a canary, one core.

P-values are compared first, and measured beside scipy's. Then more than scipy answers is measured beside the
same loop: the judgement (labels, effect sizes, summaries, score and verdict), where an interval is found only
if a label depends on it; and the judgement with every interval.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

from benchmarks.common import arguments, compare, pinned
from matinee.canary.judge import CanaryConfig, Metric, Samples, judge
from matinee.canary.judge.ranks import Ranks
from matinee.canary.judge.rows import Rows, pad

NAME = "judge_speed"
METRICS, GROUPS = 1_000, 5
POINTS = (60, 1_440)
"""A side: an hour, and a day, of minutes."""
HARMED = 0.01
"""Share of the metrics that are a third worse."""


def main(quick: bool) -> None:
    """Draw canaries, compare p-values, measure."""
    for points in POINTS[:1] if quick else POINTS:
        for kind, draw in GAUGES.items():
            run(kind, canary(draw, points), points)


def run(kind: str, samples: Mapping[str, Samples], points: int) -> None:
    """Measure each answer on one canary and print its lines."""
    config = CanaryConfig(
        metrics=[Metric(name=name, groups=[f"g{place % GROUPS}"]) for place, name in enumerate(samples)]
    )

    def check() -> None:
        np.testing.assert_allclose(p_values(samples), scipys(samples), rtol=1e-9)

    answers: dict[str, Callable[[], object]] = {
        "p-values": lambda: p_values(samples),
        "judgement, kayenta": lambda: judge(config, samples, mode="kayenta", intervals=False),
        "judgement, strict": lambda: judge(config, samples, intervals=False),
        "judgement with every interval, kayenta": lambda: judge(config, samples, mode="kayenta"),
    }
    for answer, ours in answers.items():
        compare(
            name=NAME,
            peer="scipy",
            metric=f"{answer}; {kind}, {points} points a side",
            unit="ms",
            ours=lambda ours=ours: taken(ours),
            theirs=lambda: taken(lambda: scipys(samples)),
            higher_is_better=False,
            sizes={"metrics": METRICS, "points": points, "cores": 1},
            versions={each: version(each) for each in ("scipy", "numpy")},
            check=check,
        )


def canary(draw: Callable[..., npt.NDArray[np.float64]], points: int) -> dict[str, Samples]:
    """METRICS pairs of samples; the experiments of the first few are worse."""
    both = draw((METRICS, 2, points))
    both[: int(HARMED * METRICS), 1] *= 4 / 3
    return {f"metric-{place}": Samples(*pair) for place, pair in enumerate(both)}


def p_values(samples: Mapping[str, Samples]) -> npt.NDArray[np.float64]:
    """Ours, of all metrics."""
    sides = zip(*((each.experiment, each.control) for each in samples.values()), strict=True)
    return Ranks(*(Rows(pad(side)[0]) for side in sides)).p_value()


def scipys(samples: Mapping[str, Samples]) -> list[float]:
    """The peer's, metric by metric."""
    return [
        mannwhitneyu(each.experiment, each.control, method="asymptotic").pvalue for each in samples.values()
    ]


def taken(run: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


_DRAW = np.random.default_rng(0)
GAUGES: dict[str, Callable[..., npt.NDArray[np.float64]]] = {
    "latencies": lambda size: _DRAW.lognormal(3, 0.5, size),
    "counts": lambda size: _DRAW.poisson(20, size).astype(np.float64),
}

if __name__ == "__main__":
    with pinned(1):
        main(arguments(__doc__).quick)

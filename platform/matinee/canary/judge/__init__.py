"""Is the experiment worse than the control? Pure: samples in, a judgement out."""

from matinee.canary.judge.config import CanaryConfig, EffectSize, Metric, read_config
from matinee.canary.judge.decide import Judgement, MetricJudgement, Samples, judge
from matinee.canary.judge.rows import Summary

__all__ = [
    "CanaryConfig",
    "EffectSize",
    "Judgement",
    "Metric",
    "MetricJudgement",
    "Samples",
    "Summary",
    "judge",
    "read_config",
]

"""Is the experiment worse than the control? Pure: samples in, a judgement out."""

from matinee.canary.judge.config import CanaryConfig, EffectSize, Metric, read_config
from matinee.canary.judge.decide import Judgement, MetricJudgement, Samples, judge
from matinee.canary.judge.intervals import (
    Analysis,
    Opinion,
    Schedule,
    analyse,
    read_request,
    warnings_of,
)
from matinee.canary.judge.rows import Summary
from matinee.canary.judge.score import Verdict

__all__ = [
    "Analysis",
    "CanaryConfig",
    "EffectSize",
    "Judgement",
    "Metric",
    "MetricJudgement",
    "Opinion",
    "Samples",
    "Schedule",
    "Summary",
    "Verdict",
    "analyse",
    "judge",
    "read_config",
    "read_request",
    "warnings_of",
]

"""How long a search may go on, and what is left of that. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from matinee.errors import InvalidInput
from matinee.training.study import Trial

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_TRIALS = re.compile(r"(\d+) *trials?")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit of trials, or of seconds of searching over all processes that search.

    Args:
        trials: that ended: finished, stopped or failed.
        seconds: from the first trial's start on, pauses between commands not counted.
    """

    trials: int | None = None
    seconds: float | None = None


def parse(text: str) -> Budget:
    """Read "20m", "1h30m", "90s" or "30 trials".

    Raises:
        InvalidInput: it is none of these, or nothing.
    """
    stripped = text.strip()
    if found := _TRIALS.fullmatch(stripped):
        budget = Budget(trials=int(found[1]))
    elif found := _TIME.fullmatch(stripped):
        amounts = zip(_UNITS.values(), (found["hms".index(unit) + 1] for unit in _UNITS), strict=True)
        budget = Budget(seconds=sum(each * int(amount or 0) for each, amount in amounts))
    else:
        budget = Budget()
    if not (budget.trials or budget.seconds):
        raise InvalidInput(f"budget {text!r} is not understood; accepted are 20m, 1h30m, 90s or '30 trials'")
    return budget


@dataclass(frozen=True, kw_only=True)
class Left:
    """What a search may still do.

    Args:
        trials: at most so many; None: no limit.
        seconds: at most so long; None: no limit.
        reason: in words.
    """

    trials: int | None
    seconds: float | None
    reason: str

    def __bool__(self) -> bool:
        return self.trials != 0 and self.seconds != 0


def left(budget: Budget, trials: Sequence[Trial], spent_s: float) -> Left:
    """What of a budget is left after these trials and seconds."""
    ended = sum(trial.end in ("finished", "stopped", "failed") for trial in trials)
    more = None if budget.trials is None else max(budget.trials - ended, 0)
    seconds = None if budget.seconds is None else max(budget.seconds - spent_s, 0.0)
    limit = f"{budget.trials} trials" if budget.seconds is None else f"{budget.seconds:.0f} s"
    return Left(trials=more, seconds=seconds, reason=f"{ended} trials in {spent_s:.0f} s, of {limit}")

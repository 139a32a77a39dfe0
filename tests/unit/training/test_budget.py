import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.errors import InvalidInput
from matinee.training.budget import Budget, left, parse
from matinee.training.study import Trial


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_a_time_is_read(hours: int, minutes: int, seconds: int):
    total = hours * 3600 + minutes * 60 + seconds
    assert parse(f"{hours}h{minutes}m{seconds}s") == Budget(seconds=total)
    assert parse(f" {seconds}m ") == Budget(seconds=60 * seconds)


@pytest.mark.parametrize(("text", "trials"), [("30 trials", 30), ("1 trial", 1), ("7trials", 7)])
def test_trials_are_read(text: str, trials: int):
    assert parse(text) == Budget(trials=trials)


@pytest.mark.parametrize("text", ["", "0m", "0 trials", "20", "-3m", "5d", "ten trials", "3m2h"])
def test_anything_else_is_refused_in_one_line(text: str):
    with pytest.raises(InvalidInput, match="accepted are 20m, 1h30m, 90s or '30 trials'") as refused:
        parse(text)
    assert "\n" not in str(refused.value)


def trials(*ends: str | None) -> list[Trial]:
    return [Trial(id=str(i), point={}, at=0, end=end) for i, end in enumerate(ends)]


def test_lost_and_running_trials_cost_nothing():
    past = trials("finished", "stopped", "failed", "lost", None)
    rest = left(Budget(trials=5), past, 7)
    assert (rest.trials, rest.seconds) == (2, None)
    assert rest.reason == "3 trials in 7 s, of 5 trials"


@given(st.integers(1, 20), st.integers(0, 40))
def test_a_budget_of_trials_is_kept(limit: int, ended: int):
    rest = left(Budget(trials=limit), trials(*["finished"] * ended), 1e6)
    assert rest.trials == max(limit - ended, 0)
    assert bool(rest) == (ended < limit)


@given(st.floats(1, 1e6), st.floats(0, 1e6))
def test_a_budget_of_time_is_kept(limit: float, spent: float):
    rest = left(Budget(seconds=limit), trials(*["finished"] * 99), spent)
    assert rest.seconds == max(limit - spent, 0)
    assert bool(rest) == (spent < limit)

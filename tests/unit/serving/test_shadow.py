"""Shadow answers: made beside the requests, dropped and counted when behind."""

from __future__ import annotations

import threading

from matinee.schema import Ranking
from matinee.serving.recommender import Answer
from matinee.serving.shadow import Shadows


def answer(request_id: str) -> Answer:
    ranking = Ranking(
        request_id=request_id,
        member_id="m",
        surface="home",
        model_version="recommender/7",
        cell="shadow",
        answer="personal",
        candidates=[],
    )
    return Answer(ranking=ranking, names=[], reason=None, time=1, features_time=None, shadow_of="r0")


def test_what_is_offered_is_made_and_handed_over() -> None:
    taken: list[tuple[str, float]] = []

    def put(made: Answer, *, latency_ms: float) -> None:
        taken.append((made.ranking.request_id, latency_ms))

    shadows = Shadows(put)
    for name in "abc":
        shadows.offer(lambda name=name: answer(name))
    shadows.close()
    assert [name for name, _ in taken] == ["a", "b", "c"]
    assert all(latency >= 0 for _, latency in taken)
    assert (shadows.made, shadows.dropped) == (3, 0)


def test_behind_it_drops_and_counts_and_never_makes_a_request_wait() -> None:
    go, begun = threading.Event(), threading.Event()

    def slow() -> Answer:
        begun.set()
        go.wait(5)
        return answer("slow")

    shadows = Shadows(lambda made, *, latency_ms: None, capacity=2)
    shadows.offer(slow)
    assert begun.wait(5)
    for _ in range(5):
        shadows.offer(slow)
    assert shadows.dropped == 3
    go.set()
    shadows.close()
    assert shadows.made == 3


def test_a_version_that_fails_harms_nothing() -> None:
    def fail() -> Answer:
        raise ValueError("no scores")

    shadows = Shadows(lambda made, *, latency_ms: None)
    shadows.offer(fail)
    shadows.offer(lambda: answer("after"))
    shadows.close()
    assert (shadows.made, shadows.dropped) == (1, 1)

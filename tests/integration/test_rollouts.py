"""The controller beside a real broker and split: what it does when it, or a person, interrupts a rollout."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import served_home

from matinee.canary import rollout
from matinee.canary.early import Limit
from matinee.canary.plan import HOLD, PROMOTE, ROLL_BACK, Plan, Step
from matinee.canary.rollout import Controller, propose, stop
from matinee.canary.store import STOP, Rollout, Rollouts
from matinee.config import Settings, load_settings
from matinee.errors import InvalidInput, NotFound
from matinee.events.broker import LocalBroker
from matinee.events.kafka import EventProducer, ensure_topics
from matinee.registry.mlflow import CHAMPION, Registry
from matinee.serving.splits import Splits

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

JUDGE = {"metrics": [{"name": "cold_rate", "analysisConfigurations": {"canary": {"direction": "increase"}}}]}
LONG = Plan(name="long", steps=(Step(share=0.2, least_s=600),), judge=JUDGE, interval_s=0.2, settle_s=0.1)
QUICK = LONG.model_copy(
    update={
        "name": "quick",
        "steps": (Step(share=0.1, least_s=0.5, least_exposures=50), Step(share=0.5, least_exposures=50)),
        "limits": (Limit(metric="cold_rate", kind="rate", harm="increase"),),
    }
)


class Bench:
    """A home with a champion "1" and a candidate "2", a broker, and exposures made by hand."""

    def __init__(self, settings: Settings, bootstrap: str) -> None:
        self.settings = settings
        self.bootstrap = bootstrap
        self.splits = Splits(settings)
        self.rollouts = Rollouts(settings)
        self.registry = Registry(settings)
        self._producer = EventProducer(settings.kafka, bootstrap)
        self._shown = 0

    def propose(self, plan: Plan, surface: str, **given: Any) -> Rollout:
        asked: dict[str, Any] = {"model": "recommender", "candidate": "2", "who": "t", "why": "t"} | given
        return propose(self.settings, plan=plan, surface=surface, **asked)

    def show(self, rollout: Rollout, count: int, *, cold: float = 0.0) -> None:
        """Expose `count` members on each side; a share of the canary's get a cold start."""
        messages = []
        for side, cell in enumerate(rollout.cells):
            for i in range(count):
                self._shown += 1
                message = {
                    "exposure_id": f"e{self._shown}",
                    "time": time.time_ns() // 1000,
                    "member_id": f"m{self._shown}",
                    "cell": cell,
                    "answer": "cold_start" if side and i < cold * count else "personal",
                    "latency_ms": 1.0,
                }
                messages.append(orjson.dumps(message))
        topic = self.settings.kafka.exposures_topic
        self._producer.send_wait(topic, ["m"] * len(messages), messages, 5.0)

    def until(self, rollout: Rollout, done: Callable[[Rollout], bool], meanwhile: Any = None) -> Rollout:
        deadline = time.monotonic() + 60
        while not done(found := self.rollouts.get(rollout.id)):
            assert time.monotonic() < deadline, found
            if meanwhile:
                meanwhile()
            time.sleep(0.05)
        return found

    def close(self) -> None:
        self._producer.close()
        self.splits.close()
        self.rollouts.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    settings = load_settings({"home": str(tmp_path_factory.mktemp("home"))}, environment={})
    served_home.register_versions(settings)
    with LocalBroker(tmp_path_factory.mktemp("broker") / "log") as broker:
        ensure_topics(settings.kafka, broker.bootstrap)
        bench = Bench(settings, broker.bootstrap)
        yield bench
        bench.close()


@pytest.fixture
def controller(bench: Bench) -> Iterator[Controller]:
    found = Controller(bench.settings, bench.bootstrap)
    yield found
    found.stop()


def test_nothing_is_dealt_without_a_controller(bench: Bench) -> None:
    asked = bench.propose(LONG, "alone")
    assert bench.splits.rules() == {}
    ended = stop(bench.settings, asked.id, who="bo", why="no longer")
    assert (ended.status, ended.live) == (STOP, False)
    with pytest.raises(InvalidInput, match="is over: stop"):
        stop(bench.settings, asked.id, who="bo", why="again")


def test_another_controller_goes_on_where_one_ended(bench: Bench) -> None:
    """Members and exposures that the first one counted are counted once by the second."""
    first = Controller(bench.settings, bench.bootstrap)
    asked = bench.propose(LONG, "restarted")
    running = bench.until(asked, lambda found: found.state is not None)
    bench.show(running, 30)
    deadline = time.monotonic() + 60
    while first.status()["rollouts"][0]["settled"] != {"baseline": 30, "canary": 30}:
        assert time.monotonic() < deadline, first.status()
        time.sleep(0.05)
    assert bench.splits.rules()["restarted"].trial == running.trial
    first.stop()
    bench.show(running, 20)
    second = Controller(bench.settings, bench.bootstrap)
    wanted = {"baseline": 50, "canary": 50}
    while not (told := second.status()["rollouts"]) or told[0]["settled"] != wanted:
        assert time.monotonic() < deadline, (told, second.status())
        time.sleep(0.05)
    assert told[0]["members"] == wanted
    assert bench.splits.rules()["restarted"].trial == running.trial
    stop(bench.settings, asked.id, who="bo", why="seen enough")
    assert "restarted" not in bench.splits.rules()
    second.stop()


def test_a_harmful_candidate_is_rolled_back_with_its_evidence(bench: Bench, controller: Controller) -> None:
    bench.splits.set("harmed", {"1": 3, "2": 1}, who="t", why="as it was")
    asked = bench.propose(QUICK, "harmed")
    running = bench.until(asked, lambda found: bench.splits.rules()["harmed"].trial == found.trial)
    bench.show(running, 100, cold=0.6)
    ended = bench.until(asked, lambda found: not found.live)
    assert ended.end is not None
    assert (ended.status, ended.end.who) == (ROLL_BACK, "controller")
    assert "early abort: cold_rate" in ended.end.reason
    assert ended.end.evidence["n"] > 100
    rules = bench.splits.rules()["harmed"]
    assert (rules.trial, dict(rules.weights)) == (None, {"1": 0.75, "2": 0.25})
    ended = bench.until(asked, lambda found: bool(found.end and found.end.report))
    assert "early abort" in Path(ended.end.report).read_text()
    row = bench.splits.rule_history("harmed")[0]
    assert (row["time_us"] - ended.end.time) / 1e6 < 2


ANALYSED = QUICK.model_copy(
    update={
        "name": "analysed",
        "mode": "kayenta",
        "steps": (Step(share=0.1, least_exposures=50),),
        "limits": (),
        "actions": QUICK.actions.model_copy(update={"passed": "hold"}),
        "analysis": {"lifetimeDurationMins": 0.05, "analysisIntervalMins": 0.025},
    }
)
"""Two intervals of 1.5 s, each seen from the start."""


@pytest.mark.parametrize(
    ("surface", "cold", "action", "scores"),
    [("analysed", 0.0, HOLD, {1: 100.0, 2: 100.0}), ("stopped", 0.6, ROLL_BACK, {1: 0.0})],
)
def test_a_step_is_judged_over_intervals(
    bench: Bench, controller: Controller, surface: str, cold: float, action: str, scores: dict[int, float]
) -> None:
    asked = bench.propose(ANALYSED, surface)
    running = bench.until(asked, lambda found: found.state is not None)
    ended = bench.until(
        asked,
        lambda found: any(each.action == action and each.report for each in found.decisions),
        lambda: bench.show(running, 20, cold=cold),
    )
    decided = ended.decisions[1]
    told = {f"interval_{number}.score": score for number, score in scores.items()}
    assert {name: value for name, value in decided.evidence.items() if name.startswith("interval")} == told
    assert "warning: fewer than 50 values of the control: cold_rate " in decided.reason
    page = Path(decided.report).read_text()
    assert all(f"<dt>{number}</dt><dd>{score:g}</dd>" in page for number, score in scores.items())
    assert "fewer than 50 values of the control" in page
    if not ended.end:
        stop(bench.settings, asked.id, who="bo", why="seen enough")


def test_a_good_candidate_goes_through_its_steps_and_is_promoted(
    bench: Bench, controller: Controller
) -> None:
    asked = bench.propose(QUICK, "promoted")
    running = bench.until(asked, lambda found: found.state is not None)
    shares = set()

    def meanwhile() -> None:
        bench.show(running, 25)
        if trial := bench.splits.rules().get("promoted"):
            shares.update(arm.share for arm in trial.trial.arms.values())

    ended = bench.until(asked, lambda found: not found.live, meanwhile)
    assert [each.action for each in ended.decisions] == ["start", "continue", PROMOTE]
    assert shares == {0.1, 0.5}
    assert bench.registry.get("recommender", CHAMPION).version == "2"
    line = bench.registry.promotions("recommender")[0]
    assert (line["version"], line["before"], line["who"]) == ("2", "1", "controller")
    assert f"rollout {ended.id}, started by t" in line["why"]
    assert "promoted" not in bench.splits.rules()
    bench.registry.promote("recommender", "1", who="t", why="clean up")


def test_a_champion_that_moved_meanwhile_ends_it(bench: Bench, controller: Controller) -> None:
    asked = bench.propose(QUICK, "moved")
    running = bench.until(asked, lambda found: found.state is not None)
    bench.splits.set("moved", {"2": 1}, who="t", why="somebody else decides")
    ended = bench.until(asked, lambda found: not found.live, lambda: bench.show(running, 25))
    assert ended.status == ROLL_BACK
    assert "version 2 serves surface moved now" in ended.decisions[-1].reason


def test_what_cannot_be_rolled_out_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidInput, match="model 'rec' is not served"):
        bench.propose(LONG, "home", model="rec")
    with pytest.raises(InvalidInput, match="serves surface home already"):
        bench.propose(LONG, "home", candidate="1")
    with pytest.raises(NotFound, match="99"):
        bench.propose(LONG, "home", candidate="99")
    with pytest.raises(InvalidInput, match=r"set canary\.prometheus"):
        bench.propose(LONG.model_copy(update={"queries": {"errors": "up"}}), "home")


def test_the_actor_comes_back_after_sigkill_and_goes_on(bench: Bench, ray_cluster: str) -> None:
    import ray

    actor = rollout.start(bench.settings, bench.bootstrap)
    asked = bench.propose(LONG, "killed")
    running = bench.until(asked, lambda found: found.state is not None)
    bench.show(running, 30)
    killed = ray.get(actor.pid.remote(), timeout=30)
    os.kill(killed, signal.SIGKILL)
    wanted = {"baseline": 30, "canary": 30}
    deadline = time.monotonic() + 60
    while not (told := (status := ray.get(actor.status.remote(), timeout=60))["rollouts"]) or (
        told[0]["members"] != wanted
    ):
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
    assert ray.get(actor.pid.remote(), timeout=30) != killed
    stop(bench.settings, asked.id, who="bo", why="seen enough")
    ray.get(actor.stop.remote(), timeout=30)
    ray.kill(actor)


def test_a_broker_that_is_gone_for_long_ends_it(tmp_path: Path) -> None:
    settings = load_settings({"home": str(tmp_path / "home")}, environment={})
    served_home.register_versions(settings)
    broker = LocalBroker(tmp_path / "log")
    bench = Bench(settings, broker.start())
    ensure_topics(settings.kafka, bench.bootstrap)
    controller = Controller(settings, bench.bootstrap)
    asked = bench.propose(LONG.model_copy(update={"blind_s": 1.0}), "blind")
    bench.until(asked, lambda found: found.state is not None)
    broker.stop()
    ended = bench.until(asked, lambda found: not found.live)
    controller.stop()
    bench.close()
    assert ended.status == ROLL_BACK
    assert "nothing could be read for" in ended.decisions[-1].reason

"""The controller: follows what members are shown and do in live rollouts, decides by the plan, and acts.

`Controller` is a plain class with a thread of its own; `start` makes it a Ray actor. What it decides is a row
before it is carried out, and what it counted is kept with its place in the topics, so another controller goes
on where this one ended.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

from matinee.actors import standing
from matinee.canary.judge import Opinion, analyse, judge
from matinee.canary.plan import CONTINUE, HOLD, PROMOTE, ROLL_BACK, WAIT, Plan, State, decide, ripe
from matinee.canary.report import write_report
from matinee.canary.store import CONTROLLER, START, STOP, Decided, Rollout, Rollouts
from matinee.canary.watch import Watch
from matinee.config import Settings
from matinee.errors import InvalidInput, MatineeError, NotFound, Unavailable
from matinee.registry.mlflow import CHAMPION, Registry
from matinee.schema import Decision
from matinee.serving.place import Rules
from matinee.serving.splits import Splits, shares

NAME = "rollouts"
CALLS_AT_ONCE = 4

TICK_S = 0.1
"""Pause between two looks at the live rollouts; `IDLE_S` where there was none."""
IDLE_S = 0.5
STOP_S = 20.0

logger = logging.getLogger(__name__)


def start(settings: Settings, bootstrap: str) -> Any:
    """Start the controller as the actor `rollouts` of namespace `matinee`; returns its handle."""
    return standing(Controller, NAME, calls_at_once=CALLS_AT_ONCE).remote(settings, bootstrap)


def propose(
    settings: Settings, *, model: str, candidate: str, plan: Plan, surface: str, who: str, why: str
) -> Rollout:
    """Ask for a rollout of a candidate on a surface; a running controller begins it.

    Raises:
        InvalidInput: another model than the served one, the candidate serves already, the plan queries a
            Prometheus that no setting names, or the surface has a live rollout.
        NotFound: there is no such version, or no version serves the surface.
    """
    if model != settings.serving.model:
        raise InvalidInput(f"model {model!r} is not served; {settings.serving.model!r} is")
    if plan.queries and not settings.canary.prometheus:
        raise InvalidInput(f"plan {plan.name} queries Prometheus; set canary.prometheus to its address")
    registry, splits, rollouts = Registry(settings), Splits(settings), Rollouts(settings)
    try:
        registry.get(model, candidate)
        baseline = serving_now(registry, splits, model, surface)
        if candidate == baseline:
            raise InvalidInput(
                f"version {candidate} serves surface {surface} already; name another candidate"
            )
        return rollouts.add(
            surface, model, baseline=baseline, candidate=candidate, plan=plan, who=who, why=why
        )
    finally:
        splits.close()
        rollouts.close()


def stop(settings: Settings, rollout_id: int, *, who: str, why: str) -> Rollout:
    """End a rollout at once: its members are back in the split. Needs no controller.

    Raises:
        NotFound: there is no such rollout.
        InvalidInput: it is over, or the reason is empty.
    """
    splits, rollouts = Splits(settings), Rollouts(settings)
    try:
        rollout = rollouts.get(rollout_id)
        if rollout.end:
            raise InvalidInput(f"rollout {rollout_id} is over: {rollout.end.action}")
        if not (who.strip() and why.strip()):
            raise InvalidInput("who and why of a stop are texts; one of them is empty")
        rollout = rollouts.decide(rollout, Decision(action=STOP, reason=why), who=who)
        if rollout.end and rollout.end.action == STOP:
            _end(rollout, rollout.end, splits, rollouts)
        return rollouts.get(rollout_id)
    finally:
        splits.close()
        rollouts.close()


def serving_now(registry: Registry, splits: Splits, model: str, surface: str) -> str:
    """The version that serves a surface: the champion, or the split's largest where it leaves that out.

    Raises:
        NotFound: none serves it.
    """
    weights = splits.rules().get(surface, Rules()).weights
    try:
        champion = registry.get(model, CHAMPION).version
    except NotFound:
        champion = ""
    if champion in weights or (champion and not weights):
        return champion
    if weights:
        return max(weights, key=lambda version: weights[version])
    raise NotFound(f"no version of {model} serves surface {surface}: there is nothing to compare with")


class Controller:
    """Follows every live rollout from construction until `stop`.

    Args:
        settings: the state database, the registry, the topics.
        bootstrap: host:port of the Kafka brokers.
    """

    def __init__(self, settings: Settings, bootstrap: str) -> None:
        self._settings = settings
        self._bootstrap = bootstrap
        self._rollouts = Rollouts(settings)
        self._splits = Splits(settings)
        self._watches: dict[int, Watch] = {}
        self._seen: dict[int, float] = {}
        self._problems: dict[int, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)
        self._thread.start()

    def status(self) -> dict[str, Any]:
        """Each live rollout with its figures, and what keeps it from being decided ("" where nothing)."""
        return {
            "rollouts": [{"id": number, **watch.figures()} for number, watch in list(self._watches.items())],
            "problems": dict(self._problems),
        }

    def pid(self) -> int:
        """The process it runs in."""
        return os.getpid()

    def stop(self) -> None:
        """Keep the figures and end; rollouts stay live for the next controller. Again is harmless."""
        self._stopping.set()
        self._thread.join(STOP_S)

    @cached_property
    def _registry(self) -> Registry:
        """Made when the first rollout needs it: it takes seconds and memory."""
        return Registry(self._settings)

    def _run(self) -> None:
        while not self._stopping.wait(TICK_S if self._watches else IDLE_S):
            try:
                live = self._rollouts.live()
            except MatineeError as failure:
                self._trouble(0, failure)
                continue
            self._problems.pop(0, None)
            for gone in self._watches.keys() - {rollout.id for rollout in live}:
                self._watches.pop(gone).close()
            for rollout in live:
                try:
                    self._follow(rollout)
                    self._problems.pop(rollout.id, None)
                except Exception as failure:
                    self._trouble(rollout.id, failure)
        for number, watch in self._watches.items():
            with suppress(MatineeError):
                self._rollouts.keep(self._rollouts.get(number), watch.to_json())
            watch.close()
        self._rollouts.close()
        self._splits.close()

    def _trouble(self, number: int, failure: Exception) -> None:
        text = f"{type(failure).__name__}: {failure}"
        if self._problems.get(number) != text:
            logger.warning("rollout %d: %s", number, text, exc_info=not isinstance(failure, MatineeError))
        self._problems[number] = text

    def _follow(self, rollout: Rollout) -> None:
        """Read on, look, and act on what the plan says."""
        if rollout.end:
            self._finish(rollout, rollout.end)
            return
        try:
            watch = self._watches.get(rollout.id)
            if watch is None:
                watch = self._watches[rollout.id] = self._begin(rollout)
                rollout = self._rollouts.get(rollout.id)
            watch.read()
            self._seen[rollout.id] = time.monotonic()
        except Unavailable as failure:
            self._blind(rollout, failure)
            raise
        state, plan = rollout.state, rollout.plan
        if state is None:
            return
        measured, opinion = watch.measured(plan, state), None
        if ripe(plan, state, measured) and watch.may_ask(plan, state):
            opinion = _asked(rollout, state, watch)
            measured = replace(
                measured,
                judgement=None if opinion.analysis else opinion.judgement,
                analysis=opinion.analysis,
                obstacle=self._obstacle(rollout),
            )
        decision = decide(plan, state, measured)
        watch.said = decision
        if decision.action == WAIT or (decision.action == HOLD and opinion is None):
            if watch.due:
                self._rollouts.keep(rollout, watch.to_json())
            return
        logger.info("rollout %d: %s (%s)", rollout.id, decision.action, decision.reason)
        rollout = self._rollouts.decide(rollout, decision)
        decided = rollout.decisions[-1]
        if rollout.end:
            self._finish(rollout, rollout.end)
        elif decided.action == CONTINUE:
            watch.tally.next_step(decided.time)
            self._deal(rollout)
            self._rollouts.keep(rollout, watch.to_json())
        self._report(rollout, decided, opinion or _judged(rollout, watch))

    def _blind(self, rollout: Rollout, failure: Unavailable) -> None:
        """Nobody sees what members do: for long, that ends a rollout."""
        blind_s = time.monotonic() - self._seen.setdefault(rollout.id, time.monotonic())
        if rollout.state and blind_s > rollout.plan.blind_s:
            decision = Decision(
                action=ROLL_BACK, reason=f"nothing could be read for {blind_s:.0f} s: {failure}"
            )
            rollout = self._rollouts.decide(rollout, decision)
            assert rollout.end is not None
            self._finish(rollout, rollout.end)

    def _report(self, rollout: Rollout, decided: Decided, opinion: Opinion) -> None:
        """Write the page of a decision: of what it rests on, or else of everything so far."""
        folder = self._settings.paths.reports / "rollouts" / str(rollout.id)
        path = folder / f"{decided.id}-{decided.action}.html"
        decision = Decision(action=decided.action, reason=decided.reason, evidence=decided.evidence)
        write_report(path, opinion.judgement, opinion.samples, decision, opinion.analysis)
        self._rollouts.report(decided, str(path))

    def _begin(self, rollout: Rollout) -> Watch:
        """From here on the topics are read; then the cells are dealt."""
        kept = self._rollouts.kept(rollout)
        watch = Watch(self._settings, self._bootstrap, rollout, kept)
        if kept is None:
            self._rollouts.keep(rollout, watch.to_json())
        if rollout.state is None:
            reason = f"{rollout.candidate} against {rollout.baseline} by plan {rollout.plan.name}"
            rollout = self._rollouts.decide(rollout, Decision(action=START, reason=reason))
        if rollout.state and watch.tally.step_began < rollout.state.step_began:
            watch.tally.next_step(rollout.state.step_began)
        if not rollout.end:
            self._deal(rollout)
        return watch

    def _deal(self, rollout: Rollout) -> None:
        """Let the split have the cells of the rollout's step; a stop that came meanwhile wins."""
        if self._splits.rules().get(rollout.surface, Rules()).trial != rollout.trial:
            why = f"rollout {rollout.id}: {rollout.decisions[-1].reason}"
            self._splits.set_trial(rollout.surface, rollout.trial, who=CONTROLLER, why=why)
        if end := self._rollouts.get(rollout.id).end:
            _end(rollout, end, self._splits, self._rollouts)

    def _finish(self, rollout: Rollout, end: Decided) -> None:
        """Carry out the decision that ends a rollout. Again is harmless."""
        if end.action == PROMOTE:
            why = f"rollout {rollout.id}, started by {rollout.who}: {end.reason}"
            self._registry.promote(rollout.model, rollout.candidate, who=end.who, why=why)
            weights = self._splits.rules().get(rollout.surface, Rules()).weights
            if rollout.baseline in weights:
                moved = {**weights, rollout.candidate: weights.get(rollout.candidate, 0.0)}
                moved[rollout.candidate] += moved.pop(rollout.baseline)
                self._splits.set(rollout.surface, shares(moved), who=end.who, why=why)
        _end(rollout, end, self._splits, self._rollouts)
        if watch := self._watches.pop(rollout.id, None):
            watch.close()

    def _obstacle(self, rollout: Rollout) -> str:
        now = serving_now(self._registry, self._splits, rollout.model, rollout.surface)
        if now == rollout.baseline:
            return ""
        return f"version {now} serves surface {rollout.surface} now; the baseline is {rollout.baseline}"


def _end(rollout: Rollout, end: Decided, splits: Splits, rollouts: Rollouts) -> None:
    why = f"rollout {rollout.id}: {end.action}, {end.reason}"
    splits.set_trial(rollout.surface, None, who=end.who, why=why)
    rollouts.finish(rollout)


def _asked(rollout: Rollout, state: State, watch: Watch) -> Opinion:
    """The judge's opinion of a ripe step."""
    plan = rollout.plan
    if plan.schedule is None:
        return _judged(rollout, watch)
    windows = watch.windows(rollout, state)
    analysis = analyse(plan.config, windows, count=plan.schedule.count, mode=plan.mode)
    watch.judged = state.step, len(windows)
    return Opinion.of(analysis, windows)


def _judged(rollout: Rollout, watch: Watch) -> Opinion:
    """The judge's opinion of everything so far."""
    samples = watch.samples(rollout)
    return Opinion(samples=samples, judgement=judge(rollout.plan.config, samples, mode=rollout.plan.mode))

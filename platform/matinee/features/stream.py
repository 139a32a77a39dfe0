"""The streaming features on Ray: workers, one keeper of titles, and a supervisor that keeps them alive.

Keeper and workers are plain classes wrapped here. A worker loses nothing by dying: a new one goes on from
the last commit. The keeper holds nothing that the workers and the lake don't: when it dies they start again
and tell it. A placement of partitions on workers is an epoch; a worker of an epoch that is over can commit
nothing, so two that think they own a partition do no harm.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from matinee.config import Settings
from matinee.errors import InvalidInput
from matinee.events import lake
from matinee.events.kafka import ensure_topics, partitions
from matinee.features.commits import Commits, Epoch, add_counts
from matinee.features.group import Push, Views
from matinee.features.keeper import HomeKeeper
from matinee.features.titles import read_catalogue
from matinee.features.transforms import VIEWS
from matinee.features.trust.expectations import Violation, merged
from matinee.features.worker import Worker
from matinee.schema import Decision

logger = logging.getLogger(__name__)

NAME = "stream-supervisor"
NAMESPACE = "matinee"
ANSWER_S = 10.0
"""Longest wait for a worker's or the keeper's answer before it counts as dead."""
READY_S = 120.0
"""Longest wait for the keeper to rebuild its state, and for a worker's first answer."""
STALLED_S = 60.0
"""Longest micro-batch; a worker that takes more is replaced."""
STOP_S = 30.0
CALM_S = 120.0
"""How long nothing must be left unread before a worker is taken away."""
FRESHNESS_S = 5.0
"""Seconds within which an event's values are to be readable, where a view does not say."""
COUNT_S = 15.0
"""How often the topic's partitions are counted."""
_RESTART_PAUSE_S = 1.0


def start(settings: Settings, bootstrap: str) -> Any:
    """Start the streaming features on the connected Ray cluster; one that runs already is replaced.

    The views are those declared now: one that is new or was changed is filled from the lake first.

    Args:
        bootstrap: the broker's address.

    Returns:
        The supervisor's actor handle, with `status`, `wait_idle`, `stop` (see `Supervisor`).

    Raises:
        NotFound: the home has no catalogue.
        Unavailable: the broker does not answer.
    """
    import ray

    from matinee.features.store import FeatureStore

    read_catalogue(settings)
    ensure_topics(settings.kafka, bootstrap)
    FeatureStore(settings).prepare()
    views = declared_views(settings)
    _replace_running()
    actor = ray.remote(Supervisor).options(
        name=NAME, namespace=NAMESPACE, num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=8
    )
    return actor.remote(settings, bootstrap, views)


def placements(partition_count: int, workers: int) -> list[list[int]]:
    """Partitions of each worker: dealt out in turn, no worker without one."""
    count = min(partition_count, workers)
    return [list(range(worker, partition_count, count)) for worker in range(count)]


def judge(keeper_alive: bool, reports: Mapping[str, Mapping[str, Any] | None]) -> Decision:
    """What the supervisor has to do.

    Args:
        keeper_alive: whether the keeper's process answers.
        reports: per worker its status; None where it did not answer.

    Returns:
        "rebuild" (keeper and workers), "replace" (workers named in `evidence`), or "keep".
    """
    if not keeper_alive:
        return Decision(action="rebuild", reason="the keeper is gone")
    silent = [name for name, report in reports.items() if report is None]
    stalled = [
        name for name, report in reports.items() if report is not None and report["since_turn_s"] > STALLED_S
    ]
    if silent or stalled:
        reason = "; ".join(
            [*(f"{name} does not answer" for name in silent), *(f"{name} is stalled" for name in stalled)]
        )
        return Decision(action="replace", reason=reason, evidence=dict.fromkeys([*silent, *stalled], 1.0))
    return Decision(action="keep", reason="all answer")


def resize(
    *, workers: int, least: int, most: int, partitions: int, lag_s: float, calm_s: float, limit_s: float
) -> Decision:
    """How many workers the load needs.

    Args:
        workers: now.
        least: never fewer.
        most: never more; nor are there ever more than partitions.
        lag_s: seconds of reading that are not read yet.
        calm_s: for how many seconds nothing has been left unread.
        limit_s: the lag that adds workers.

    Returns:
        "resize" with `evidence["workers"]`, or "keep".
    """
    top = max(least, min(most, partitions)) if most else least
    if lag_s > limit_s and workers < top:
        wanted = min(top, workers * 2)
        return Decision(
            action="resize",
            reason=f"{lag_s:.0f} s behind, more than {limit_s:g}",
            evidence={"workers": wanted},
        )
    if calm_s > CALM_S and workers > least:
        wanted = max(least, workers // 2)
        return Decision(
            action="resize",
            reason=f"nothing left unread for {calm_s:.0f} s",
            evidence={"workers": wanted},
        )
    return Decision(action="keep", reason=f"{lag_s:.0f} s behind with {workers} workers")


class RemoteKeeper:
    """A worker's view of the keeper's actor."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def push(self, push: Push) -> dict[str, int]:
        """See `keeper.Keeper.push`."""
        import ray

        written: dict[str, int] = ray.get(self._handle.push.remote(push))
        return written


class Supervisor:
    """Starts keeper and workers, looks at them every `stream.heartbeat_s`, replaces what is dead."""

    def __init__(self, settings: Settings, bootstrap: str, views: Views) -> None:
        self._settings = settings
        self._bootstrap = bootstrap
        self._views = views
        self._commits = Commits(settings.stream_state)
        self._partitions = partitions(settings.kafka, bootstrap, settings.kafka.events_topic)
        self._wanted = settings.stream.workers
        self._epoch = Epoch()
        self._keeper: Any = None
        self._keeper_pid = 0
        self._workers: dict[str, Any] = {}
        self._reports: dict[str, Mapping[str, Any]] = {}
        self._settled = False
        self._begun: dict[str, float] = {}
        self._title_violations: list[Violation] = []
        self._pace = _Pace()
        self._counted_at = time.monotonic()
        self._restarts = 0
        self._state, self._reason = "starting", ""
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def status(self) -> dict[str, Any]:
        """Figures now, summed over the workers.

        Returns:
            state ("starting", "running", "failed", "stopped") with its reason, events, duplicates,
            dead_letters, late (per view), lag (messages not yet online), freshness_p50_s and
            freshness_p99_s (seconds from ingest to online over the events of the last minute; None without
            one), last_event_time (microseconds, None before the first), views (per view: last_write and
            newest_event, microseconds, freshness_p50_s, freshness_p99_s, objective_s), violations (of
            expectations, as `trust.expectations.Violation` with counts), workers (alive), epoch, restarts,
            state_bytes, in_lake (events at rest), pids (of "supervisor", "keeper" and each worker).
        """
        with self._lock:
            handles = dict(self._workers)
        fresh = {name: report for name, report in self._ask(handles).items() if report is not None}
        with self._lock:
            self._reports.update({name: each for name, each in fresh.items() if name in self._workers})
            reports = list(self._reports.values())
        counts = add_counts([self._epoch.carried, *(report["counts"] for report in reports)])
        ages = [age for report in reports for view in report["views"].values() for age in view["freshness_s"]]
        failed = [f"{r['name']}: {r['reason']}" for r in reports if r["state"] == "failed"]
        state, reason = ("failed", "; ".join(failed)) if failed else (self._state, self._reason)
        times = [report["last_event_time"] for report in reports]
        return {
            "state": state,
            "reason": reason,
            **{name: counts.get(name, 0) for name in ("events", "duplicates", "dead_letters")},
            "late": {name.removeprefix("late/"): n for name, n in counts.items() if name.startswith("late/")},
            "lag": sum(report["lag"] for report in reports),
            **_quantiles(ages),
            "last_event_time": max([self._epoch.last_event_time, *times]) or None,
            "views": self._view_figures(reports),
            "violations": self._violations(reports),
            "workers": len(fresh),
            "epoch": self._epoch.number,
            "restarts": self._restarts,
            "state_bytes": sum(report["state_bytes"] for report in reports),
            "in_lake": lake.count(self._settings.paths.events),
            "pids": {
                "supervisor": os.getpid(),
                "keeper": self._keeper_pid,
                **{name: report["pid"] for name, report in fresh.items()},
            },
        }

    def _view_figures(self, reports: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        figures: dict[str, dict[str, Any]] = {}
        for name in self._views.names:
            known = [report["views"][name] for report in reports if name in report["views"]]
            if known:
                figures[name] = {
                    "last_write": max(each["last_write"] for each in known),
                    "newest_event": max(each["newest_event"] for each in known),
                    **_quantiles([age for each in known for age in each["freshness_s"]]),
                    "objective_s": self._views.objectives.get(name),
                }
        return figures

    def _violations(self, reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Of members by worker, of titles by the keeper: one a view, feature and rule."""
        import ray

        found = [Violation(**each) for report in reports for each in report["violations"]]
        if self._keeper is not None:
            try:
                known = ray.get(self._keeper.violations.remote(), timeout=1.0)
                self._title_violations = [Violation(**each) for each in known]
            except ray.exceptions.RayError:
                pass
        return [asdict(each) for each in merged([*found, *self._title_violations])]

    def rescale(self, workers: int) -> int:
        """Place the partitions on this many workers; returns how many there are then.

        Workers commit and end; their partitions' state goes to the new ones.
        """
        if workers < 1:
            raise InvalidInput(f"workers is {workers}; 1 or more are accepted")
        self._wanted = workers
        with self._lock:
            if self._keeper is None:
                return 0
            self._end_workers(gently=True)
            self._place()
            return len(self._workers)

    def wait_idle(self, timeout_s: float) -> bool:
        """True once everything in the log at some moment of the call is online and committed."""
        import ray

        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                handles = list(self._workers.values())
            if handles and len(handles) == len(self._epoch.workers) and self._state == "running":
                try:
                    left = max(0.1, deadline - time.monotonic())
                    if all(ray.get([handle.caught_up.remote() for handle in handles], timeout=left)):
                        return True
                except ray.exceptions.RayError:
                    pass
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)

    def stop(self) -> None:
        """Commit and end the workers and the keeper. The actor itself stays and answers."""
        self._stopping.set()
        self._thread.join()
        with self._lock:
            self.status()
            self._end_workers(gently=True)
            self._kill(self._keeper)
            self._keeper = None
            self._state = "stopped"

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except Exception as failure:
                logger.exception("the stream cannot go on; trying again")
                self._state, self._reason = "failed", str(failure)
                self._stopping.wait(_RESTART_PAUSE_S)
            self._stopping.wait(self._settings.stream.heartbeat_s)

    def _turn(self) -> None:
        if self._keeper is None:
            self._build()
            return
        with self._lock:
            handles = dict(self._workers)
        reports = self._ask(handles)
        decision = judge(self._answers(self._keeper), reports)
        if decision.action == "rebuild":
            logger.warning("stream: %s; starting keeper and workers again", decision.reason)
            self._restarts += 1
            self._state, self._reason = "starting", decision.reason
            with self._lock:
                self._end_workers(gently=False)
                self._kill(self._keeper)
                self._keeper = None
            self._build()
        elif decision.action == "replace":
            logger.warning("stream: %s; going on from the last commit", decision.reason)
            with self._lock:
                for name in decision.evidence:
                    if self._workers.get(name) is handles[name]:
                        self._restarts += 1
                        self._kill(self._workers[name])
                        self._workers[name] = self._worker(name)
        else:
            self._settle(reports)
            self._resize(reports)

    def _settle(self, reports: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Once every worker of the epoch has committed, what older epochs left can go."""
        current = reports.keys() == self._workers.keys()
        if (
            not self._settled
            and current
            and all(report and report["restored"] for report in reports.values())
        ):
            self._commits.forget(self._epoch.number)
            self._settled = True

    def _resize(self, reports: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Follow the topic's partitions and the load."""
        if time.monotonic() - self._counted_at > COUNT_S:
            self._counted_at = time.monotonic()
            count = partitions(self._settings.kafka, self._bootstrap, self._settings.kafka.events_topic)
            if count != self._partitions:
                logger.warning("stream: %d partitions, were %d; placing them anew", count, self._partitions)
                self._partitions = count
                self.rescale(self._wanted)
                return
        known = [report for report in reports.values() if report]
        self._pace.note(
            events=sum(report["counts"].get("events", 0) for report in known),
            lag=sum(report["lag"] for report in known),
        )
        stream = self._settings.stream
        decision = resize(
            workers=len(self._workers),
            least=min(stream.workers, self._partitions),
            most=stream.most_workers,
            partitions=self._partitions,
            lag_s=self._pace.lag_s,
            calm_s=self._pace.calm_s,
            limit_s=stream.lag_s,
        )
        if decision.action == "resize":
            logger.warning(
                "stream: %s; %d workers from now on", decision.reason, decision.evidence["workers"]
            )
            self._pace = _Pace()
            self.rescale(int(decision.evidence["workers"]))

    def _build(self) -> None:
        import ray

        keeper = ray.remote(HomeKeeper).options(num_cpus=0).remote(self._settings, self._views)
        try:
            ready = keeper.ready.remote()
            waited = time.monotonic()
            while not ray.wait([ready], timeout=0.1)[0]:
                if self._stopping.is_set() or time.monotonic() - waited > READY_S:
                    self._kill(keeper)
                    return
            pid = ray.get(ready)
        except ray.exceptions.RayError:
            self._kill(keeper)
            raise
        with self._lock:
            self._keeper, self._keeper_pid = keeper, pid
            self._place()
        self._state, self._reason = "running", ""

    def _place(self) -> None:
        """Begin an epoch: the wanted number of workers share the partitions."""
        groups = placements(self._partitions, self._wanted)
        self._epoch = self._commits.begin({f"worker-{i}": group for i, group in enumerate(groups)})
        self._settled = False
        self._reports = {}
        self._workers = {name: self._worker(name) for name in self._epoch.workers}

    def _worker(self, name: str) -> Any:
        import ray

        handle = (
            ray.remote(Worker)
            .options(num_cpus=0, max_concurrency=4)
            .remote(
                self._settings,
                self._bootstrap,
                name=name,
                partitions=self._epoch.workers[name],
                views=self._views,
                keeper=RemoteKeeper(self._keeper),
                epoch=self._epoch.number,
            )
        )
        handle.start.remote()
        self._begun[name] = time.monotonic()
        return handle

    def _ask(self, handles: Mapping[str, Any]) -> dict[str, Mapping[str, Any] | None]:
        """Each worker's status; None for one that does not answer. One that still starts is left out."""
        import ray

        asked = {name: handle.status.remote() for name, handle in handles.items()}
        answers: dict[str, Mapping[str, Any] | None] = {}
        deadline = time.monotonic() + ANSWER_S
        for name, reference in asked.items():
            try:
                answers[name] = ray.get(reference, timeout=max(0.1, deadline - time.monotonic()))
                self._begun.pop(name, None)
            except ray.exceptions.GetTimeoutError:
                if time.monotonic() - self._begun.get(name, -READY_S) >= READY_S:
                    answers[name] = None
            except ray.exceptions.RayError:
                answers[name] = None
        return answers

    def _answers(self, keeper: Any) -> bool:
        """Whether the keeper's process is alive; one that is busy with a long batch is."""
        import ray

        try:
            ray.get(keeper.ready.remote(), timeout=0.5)
        except ray.exceptions.GetTimeoutError:
            return True
        except ray.exceptions.RayActorError:
            return False
        return True

    def _end_workers(self, *, gently: bool) -> None:
        import ray

        handles = list(self._workers.values())
        if gently:
            ray.wait([handle.stop.remote() for handle in handles], num_returns=len(handles), timeout=STOP_S)
            self._reports.update({k: v for k, v in self._ask(self._workers).items() if v is not None})
        for handle in handles:
            self._kill(handle)
        self._workers = {}

    def _kill(self, handle: Any) -> None:
        """End an actor and wait until it has ended: what it wrote then is what stays."""
        import ray

        if handle is None:
            return
        ray.kill(handle)
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            try:
                ray.get(handle.__ray_ready__.remote(), timeout=0.5)
            except ray.exceptions.GetTimeoutError:
                continue
            except ray.exceptions.RayError:
                return
            time.sleep(0.01)


def declared_views(settings: Settings) -> Views:
    """The views of the home's registry that a stream computes, with what is expected of them."""
    from matinee.features.store.declared import declared

    found = declared(settings).views
    aggregates = [view.aggregate for view in found.values() if view.aggregate is not None]
    histories = [view for view in VIEWS.values() if view.name in found]
    names = [*(view.name for view in aggregates), *(view.name for view in histories)]
    return Views(
        aggregates=aggregates,
        histories=histories,
        expectations={name: found[name].expected for name in names},
        objectives={name: float(found[name].tags.get("freshness_s", FRESHNESS_S)) for name in names},
    )


def _quantiles(ages: Sequence[float]) -> dict[str, float | None]:
    return {
        f"freshness_{name}_s": float(np.percentile(ages, share)) if len(ages) else None
        for name, share in (("p50", 50), ("p99", 99))
    }


class _Pace:
    """How fast the stream reads, and how far it is behind."""

    def __init__(self) -> None:
        self._events = 0
        self._at = 0.0
        self._calm_since = time.monotonic()
        self.lag_s = 0.0

    @property
    def calm_s(self) -> float:
        """Seconds for which nothing was left unread."""
        return time.monotonic() - self._calm_since

    def note(self, *, events: int, lag: int) -> None:
        """Take the counts of a turn."""
        now = time.monotonic()
        if lag:
            self._calm_since = now
        if self._at:
            rate = max(events - self._events, 1) / max(now - self._at, 1e-3)
            self.lag_s = lag / rate if lag else 0.0
        self._events, self._at = events, now


def _replace_running() -> None:
    import ray

    try:
        running = ray.get_actor(NAME, namespace=NAMESPACE)
    except ValueError:
        return
    try:
        ray.get(running.stop.remote(), timeout=STOP_S + ANSWER_S)
    except ray.exceptions.RayError as failure:
        logger.warning("the running stream did not stop by itself: %s", failure)
    ray.kill(running)
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        try:
            ray.get_actor(NAME, namespace=NAMESPACE)
        except ValueError:
            return
        time.sleep(0.05)

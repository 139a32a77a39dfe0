"""The streaming features on Ray: one keeper, some workers, and a supervisor that keeps them alive.

The keeper and the workers are plain classes wrapped here. Workers lose nothing by dying: a new one goes on
from the last commit. When the keeper dies its state is rebuilt from the lake, so the workers start again
too, from the commits that the lake agrees with.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matinee.config import Settings
from matinee.events import lake
from matinee.events.kafka import ensure_topics, partitions
from matinee.features import commits
from matinee.features.keeper import HomeKeeper
from matinee.features.titles import read_catalogue
from matinee.features.worker import Worker
from matinee.schema import Decision

logger = logging.getLogger(__name__)

NAME = "stream-supervisor"
NAMESPACE = "matinee"
ANSWER_S = 10.0
"""Longest wait for a worker's or the keeper's answer before it counts as dead."""
READY_S = 120.0
"""Longest wait for the keeper to rebuild its state."""
STALLED_S = 60.0
"""Longest micro-batch; a worker that takes more is replaced."""
STOP_S = 30.0
_RESTART_PAUSE_S = 1.0


def start(settings: Settings, bootstrap: str) -> Any:
    """Start the streaming features on the connected Ray cluster; one that runs already is replaced.

    Args:
        bootstrap: the broker's address.

    Returns:
        The supervisor's actor handle, with `status`, `wait_idle`, `stop` (see `Supervisor`).

    Raises:
        NotFound: the home has no catalogue.
        Unavailable: the broker does not answer.
    """
    import ray

    read_catalogue(settings)
    ensure_topics(settings.kafka, bootstrap)
    _replace_running()
    actor = ray.remote(Supervisor).options(
        name=NAME, namespace=NAMESPACE, num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=8
    )
    return actor.remote(settings, bootstrap)


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


class RemoteKeeper:
    """A worker's view of the keeper's actor."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def add(self, events: pa.Table, log: str) -> npt.NDArray[np.bool_]:
        """See `keeper.Keeper.add`."""
        import ray

        accepted: npt.NDArray[np.bool_] = ray.get(self._handle.add.remote(events, log))
        return accepted


class Supervisor:
    """Starts keeper and workers, looks at them every `stream.heartbeat_s`, replaces what is dead."""

    def __init__(self, settings: Settings, bootstrap: str) -> None:
        self._settings = settings
        self._bootstrap = bootstrap
        count = partitions(settings.kafka, bootstrap, settings.kafka.events_topic)
        self._placements = {
            f"worker-{i}": group for i, group in enumerate(placements(count, settings.stream.workers))
        }
        self._keeper: Any = None
        self._keeper_pid = 0
        self._workers: dict[str, Any] = {}
        self._reports: dict[str, Mapping[str, Any]] = {}
        self._gone = [
            commit
            for name, commit in commits.read(settings.paths.stream).items()
            if name not in self._placements
        ]
        """Commits of workers that an earlier run had and this one has not."""
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
            dead_letters, lag (messages not yet online), freshness_p50_s and freshness_p99_s (seconds from
            ingest to online over the events of the last minute; None without one), last_event_time
            (microseconds, None before the first), workers (alive), restarts, in_lake (events at rest),
            pids (of "keeper" and each worker).
        """
        with self._lock:
            handles = dict(self._workers)
        fresh = {name: report for name, report in self._ask(handles).items() if report is not None}
        self._reports.update(fresh)
        reports = list(self._reports.values())
        samples = np.array([sample for report in reports for sample in report["freshness_s"]])
        times = [r["last_event_time"] for r in reports] + [c.last_event_time for c in self._gone]
        failed = [f"{r['name']}: {r['reason']}" for r in reports if r["state"] == "failed"]
        state, reason = ("failed", "; ".join(failed)) if failed else (self._state, self._reason)
        total = {
            name: sum(report[name] for report in reports) + sum(getattr(each, name) for each in self._gone)
            for name in ("events", "duplicates", "dead_letters")
        }
        return {
            "state": state,
            "reason": reason,
            "events": total["events"],
            "duplicates": sum(report["duplicates"] for report in reports)
            + sum(c.duplicates for c in self._gone),
            "dead_letters": sum(report["dead_letters"] for report in reports)
            + sum(c.dead_letters for c in self._gone),
            "lag": sum(report["lag"] for report in reports),
            "freshness_p50_s": float(np.percentile(samples, 50)) if len(samples) else None,
            "freshness_p99_s": float(np.percentile(samples, 99)) if len(samples) else None,
            "last_event_time": max(times, default=0) or None,
            "workers": len(fresh),
            "restarts": self._restarts,
            "in_lake": lake.count(self._settings.paths.events),
            "pids": {"keeper": self._keeper_pid, **{name: report["pid"] for name, report in fresh.items()}},
        }

    def wait_idle(self, timeout_s: float) -> bool:
        """True once everything in the log at some moment of the call is online and committed."""
        import ray

        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                handles = list(self._workers.values())
            if len(handles) == len(self._placements) and self._state == "running":
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
            logger.warning("stream: %s; rebuilding from the lake", decision.reason)
            self._restarts += 1
            self._state, self._reason = "starting", decision.reason
            with self._lock:
                self._end_workers(gently=False)
                self._kill(self._keeper)
                self._keeper = None
            self._build()
        elif decision.action == "replace":
            logger.warning("stream: %s; going on from the last commit", decision.reason)
            for name in decision.evidence:
                self._restarts += 1
                with self._lock:
                    self._kill(self._workers.pop(name))
                    self._workers[name] = self._worker(name)

    def _build(self) -> None:
        import ray

        keeper = ray.remote(HomeKeeper).options(num_cpus=0).remote(self._settings)
        try:
            ready = keeper.ready.remote()
            waited = time.monotonic()
            while not ray.wait([ready], timeout=0.1)[0]:
                if self._stopping.is_set() or time.monotonic() - waited > READY_S:
                    self._kill(keeper)
                    return
            self._keeper_pid = ray.get(ready)["pid"]
        except ray.exceptions.RayError:
            self._kill(keeper)
            raise
        with self._lock:
            self._keeper = keeper
            self._workers = {name: self._worker(name) for name in self._placements}
        self._state, self._reason = "running", ""

    def _worker(self, name: str) -> Any:
        import ray

        handle = (
            ray.remote(Worker)
            .options(num_cpus=0, max_concurrency=4)
            .remote(
                self._settings,
                self._bootstrap,
                name=name,
                partitions=self._placements[name],
                keeper=RemoteKeeper(self._keeper),
            )
        )
        handle.start.remote()
        return handle

    def _ask(self, handles: Mapping[str, Any]) -> dict[str, Mapping[str, Any] | None]:
        import ray

        asked = {name: handle.status.remote() for name, handle in handles.items()}
        answers: dict[str, Mapping[str, Any] | None] = {}
        deadline = time.monotonic() + ANSWER_S
        for name, reference in asked.items():
            try:
                answers[name] = ray.get(reference, timeout=max(0.1, deadline - time.monotonic()))
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
        import ray

        if handle is not None:
            ray.kill(handle)


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

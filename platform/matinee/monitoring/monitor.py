"""The monitor: reads exposures without end, looks for drift and at features, and tells its figures.

`Monitor` is a plain class with threads of its own; `start` makes it a Ray actor. It survives the broker
being away and a registry without a champion: its status says so, and it tries again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from matinee.actors import standing
from matinee.config import Settings
from matinee.errors import MatineeError, NotFound
from matinee.monitoring.check import Check, champion, check, drift_event, live_name
from matinee.monitoring.metrics import OWN, render
from matinee.monitoring.reader import ExposureReader
from matinee.monitoring.send import send_signals
from matinee.monitoring.watch import FeatureWatch
from matinee.schema import ModelVersion

NAME = "monitor"
CALLS_AT_ONCE = 8

STOP_S = 20.0

logger = logging.getLogger(__name__)


def start(settings: Settings, bootstrap: str, stream_handle: Any) -> Any:
    """Start the monitor as the actor `monitor` of namespace `matinee`; returns its handle.

    It answers `metrics` and `status` while a check runs. `stop` leaves nothing uncommitted; the actor
    itself ends with its owner.

    Args:
        settings: where to keep and what to compare with.
        bootstrap: host:port of the Kafka brokers.
        stream_handle: the streaming features' supervisor, or None.
    """
    stream_status = _status_of(stream_handle) if stream_handle else None
    actor = standing(Monitor, NAME, calls_at_once=CALLS_AT_ONCE)
    return actor.remote(settings, bootstrap, stream_status)


def _status_of(handle: Any) -> Callable[[], Mapping[str, Any]]:
    def status() -> Mapping[str, Any]:
        import ray

        found: Mapping[str, Any] = ray.get(handle.status.remote(), timeout=1.0)
        return found

    return status


class Monitor:
    """Consumes exposures and checks for drift from construction until `stop`.

    Args:
        settings: where to keep and what to compare with.
        bootstrap: host:port of the Kafka brokers.
        stream_status: asks the streaming features for their status; None where there are none.
    """

    def __init__(
        self,
        settings: Settings,
        bootstrap: str,
        stream_status: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self._settings = settings
        self._bootstrap = bootstrap
        self._stream_status = stream_status
        self._reader = ExposureReader(settings, bootstrap)
        self._send = partial(send_signals, settings, bootstrap)
        self._watch = FeatureWatch(settings, self._send, stream_status)
        self._checking = threading.Lock()
        self._stopping = threading.Event()
        self._told = ""
        self._check_problem = ""
        self._champion: ModelVersion | None = None
        self._last: Check | None = None
        self._threads = [
            threading.Thread(target=self._reader.run, args=(self._stopping,), name="exposures", daemon=True),
            threading.Thread(target=self._check_always, name="drift", daemon=True),
            threading.Thread(target=self._watch.run, args=(self._stopping,), name="features", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def check(self) -> dict[str, Any]:
        """Look for drift now; the fields of `check.Check`, and `sent`: whether a drift event went out.

        Without a champion or its reference the decision is "hold", with the reason. An event that could
        not be sent is sent by the next check that still finds drift.

        Raises:
            StorageError: the report cannot be written.
        """
        with self._checking:
            try:
                self._champion = champion(self._settings)
                found = check(self._settings, self._champion, self._reader.window)
            except NotFound as failure:
                model = self._settings.serving.model
                version = self._champion.version if self._champion else ""
                now = time.time_ns() // 1000
                reason = str(failure)
                found = Check(
                    time=now, model=model, model_version=version, decision="hold", reason=reason, rows=0
                )
            self._last = found
            logger.info("drift: %s (%s)", found.decision, found.reason)
            return {**asdict(found), "sent": self._tell(found)}

    def compare_features(self) -> dict[str, Any] | None:
        """Hold the served features against the lake now; the fields of `features.ConsistencyReport`.

        None where the home has no catalogue yet.

        Raises:
            StorageError: the report cannot be written.
        """
        report = self._watch.compare()
        return None if report is None else asdict(report)

    def status(self) -> dict[str, Any]:
        """What it has read and decided, and what keeps it from doing so (`problem`, empty where nothing)."""
        reader, window = self._reader, self._reader.window
        version = live_name(self._champion) if self._champion else window.newest
        return {
            "consuming": reader.consuming,
            "problem": reader.problem,
            "check_problem": self._check_problem,
            "exposures": reader.kept,
            "exposures_lag": reader.lag,
            "exposures_rejected": reader.rejected,
            "exposures_repeated": reader.repeated,
            "model_version": version,
            "window_rows": window.rows(version),
            "window_cold_share": window.cold_share(version),
            "last_check": asdict(self._last) if self._last else None,
        }

    def metrics(self) -> str:
        """Every pipeline gauge as Prometheus text; the streaming features' own where they answer."""
        status = self.status()
        figures: dict[str, float | None] = {}
        stream: Mapping[str, Any] = {}
        if self._stream_status:
            try:
                stream = self._stream_status()
                figures = {name: v for name, v in stream.items() if isinstance(v, int | float)}
                figures["stream_up"] = stream["state"] == "running"
            except Exception:
                logger.warning("the streaming features do not answer", exc_info=True)
                figures["stream_up"] = 0
        figures |= {measure.figure: status[measure.figure] for measure in OWN}
        features = self._watch.figures(stream)
        last = self._last
        if last is None:
            return render(figures, features=features)
        figures["last_check_s"] = last.time / 1e6
        figures["drift_share"] = last.share
        figures["drifted_columns"] = None if last.share is None else len(last.drifted)
        return render(figures, drift=last.columns, version=last.model_version, features=features)

    def pid(self) -> int:
        """The process it runs in."""
        return os.getpid()

    def wait_kept(self, exposures: int, timeout_s: float) -> bool:
        """Whether at least so many exposures are in the lake within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self._reader.kept < exposures and time.monotonic() < deadline:
            time.sleep(0.05)
        return self._reader.kept >= exposures

    def stop(self) -> dict[str, Any]:
        """Read and commit what the topic holds, then end; returns the last status. Again is harmless."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(STOP_S)
        return self.status()

    def _tell(self, found: Check) -> bool:
        """Send a drift event where drift is news: none was sent since the version was last found well."""
        if found.decision == "keep":
            self._told = ""
        if found.decision != "drift" or self._told == found.model_version:
            return False
        if not self._send([(found.model, drift_event(found))]):
            return False
        self._told = found.model_version
        return True

    def _check_always(self) -> None:
        seen = -1
        while not self._stopping.wait(self._settings.monitoring.interval_s):
            if self._reader.kept == seen:
                continue
            seen = self._reader.kept
            try:
                self.check()
                self._check_problem = ""
            except Exception as failure:
                self._check_problem = f"{type(failure).__name__}: {failure}"
                logger.warning("drift check failed", exc_info=not isinstance(failure, MatineeError))

"""Which model versions are live, and for whom: followed from the split rows and the champion alias.

A replica polls; requests read one immutable `Plan`. A version takes traffic only once it is loaded
and has scored, so a change of weights neither restarts a replica nor makes a request wait.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np

from matinee.config import Settings
from matinee.errors import NotFound, Unavailable
from matinee.experiments.allocate import allocate
from matinee.models.base import Model, Query, Scores
from matinee.models.bundle import Bundle, load_bundle
from matinee.registry.mlflow import CHAMPION, Registry
from matinee.serving.batches import Batches
from matinee.serving.columns import Columns
from matinee.serving.rank import Titles
from matinee.serving.splits import Splits

POLL_S = 0.25
"""How often a replica looks for a changed split."""

CHAMPION_POLLS = 4
"""Polls between two looks at the alias, which moves rarely."""

RETRY_S = 5.0
"""Wait before a version that failed to load is tried again."""

logger = logging.getLogger(__name__)


@runtime_checkable
class Explained(Protocol):
    """A model whose score is a sum of named parts."""

    def score_parts(self, query: Query) -> dict[str, Scores]:
        """Per part, float32 [m, titles]; they sum to the score."""


@dataclass(frozen=True, kw_only=True)
class Live:
    """A loaded version.

    Args:
        name: registered model and version, "recommender/3".
        bundle: the model with its catalogue.
        titles: the catalogue in columns.
    """

    name: str
    bundle: Bundle
    titles: Titles

    @cached_property
    def columns(self) -> Columns:
        """The titles as pages read them."""
        return Columns(self.bundle, self.titles)

    @cached_property
    def cold(self) -> Scores:
        """The version's scores for somebody unknown, as of when it was loaded: float32 [titles]."""
        return self.bundle.model.score(_watched([])).ravel()

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Models inside the version that can rank alone, the quickest first.

        Those that rank alike for everybody come last.
        """
        found = []
        for name, model in getattr(self.bundle.model, "members", {}).items():
            cold = model.score(_watched([]))
            start = time.perf_counter()
            personal = not np.array_equal(cold, model.score(_watched([0])))
            found.append((not personal, time.perf_counter() - start, name))
        return tuple(name for *_, name in sorted(found))

    def ask(self, query: Query) -> Mapping[str, Scores]:
        """Named parts that the version's scores are the sum of, float32 [m, titles]."""
        return _parts(self.bundle.name, self.bundle.model, query)

    @cached_property
    def batches(self) -> Batches:
        """What requests ask the version through."""
        return Batches(self.ask)

    @cached_property
    def batches_by_part(self) -> Mapping[str, Batches]:
        """The same of the models inside it."""
        members: Mapping[str, Model] = getattr(self.bundle.model, "members", {})
        return {name: Batches(partial(_parts, name, model)) for name, model in members.items()}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who gets which version, complete: every version named here is loaded.

    Args:
        model: the registered model; also the salt, so a member is in one arm on every surface whose
            weights are equal.
        champion: version that serves surfaces without a split; "" where there is none.
        splits: surface to version to share.
        live: loaded versions.
    """

    model: str
    champion: str = ""
    splits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    live: Mapping[str, Live] = field(default_factory=dict)

    def weights(self, surface: str) -> Mapping[str, float]:
        """Version to share on a surface; empty where nothing can serve it."""
        split = self.splits.get(surface)
        return split or ({self.champion: 1.0} if self.champion else {})

    def version(self, member_id: str, surface: str) -> tuple[str, Live]:
        """The cell a member is in on a surface, and its version.

        Raises:
            Unavailable: no version is live for the surface.
        """
        weights = self.weights(surface)
        if not weights:
            raise Unavailable(
                f"no version of model {self.model} is live for surface {surface}: "
                f"alias {CHAMPION} names none and no split is set"
            )
        version = allocate(member_id, f"split/{self.model}", weights)
        return f"v{version}", self.live[version]


class LiveVersions:
    """Keeps `plan` in step with the database and the registry until closed.

    Args:
        settings: model name, state database and registry.
    """

    def __init__(self, settings: Settings) -> None:
        self._model = settings.serving.model
        self._withdrawn = settings.serving.withdrawn
        self._splits = Splits(settings)
        self._registry = Registry(settings)
        self._failed: dict[str, float] = {}
        self._trouble = ""
        self._champion = ""
        self._polls = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="live-versions", daemon=True)
        self.plan = Plan(model=self._model)

    def start(self) -> None:
        """Load what is live now, then follow changes on a thread."""
        self._try_refresh()
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._splits.close()

    def refresh(self) -> None:
        """Look once. A version that cannot be loaded leaves the splits that need it as they were."""
        wanted = self._splits.live()
        if self._polls % CHAMPION_POLLS == 0:
            self._champion = self._aliased()
        self._polls += 1
        old = self.plan
        live = dict(old.live)
        champion = self._champion if self._load(self._champion, live) else old.champion
        splits = {}
        for surface, weights in wanted.items():
            loaded = [self._load(version, live) for version in weights]
            kept = weights if all(loaded) else old.splits.get(surface)
            if kept:
                splits[surface] = kept
        if (champion, splits) != (old.champion, old.splits):
            needed = {champion}.union(*splits.values())
            self.plan = Plan(
                model=self._model,
                champion=champion,
                splits=MappingProxyType(splits),
                live={version: live[version] for version in needed if version},
            )
            logger.info("live now: champion %s, splits %s", champion or "none", splits)

    def _follow(self) -> None:
        while not self._stop.wait(POLL_S):
            self._try_refresh()

    def _try_refresh(self) -> None:
        try:
            self.refresh()
            self._trouble = ""
        except Exception as failure:
            trouble = f"{type(failure).__name__}: {failure}"
            if trouble != self._trouble:
                logger.warning("the live versions stay as they are: %s", trouble)
            self._trouble = trouble

    def _aliased(self) -> str:
        try:
            return self._registry.get(self._model, CHAMPION).version
        except NotFound:
            return ""

    def _load(self, version: str, live: dict[str, Live]) -> bool:
        if not version or version in live:
            return bool(version)
        if self._failed.get(version, -RETRY_S) + RETRY_S > time.monotonic():
            return False
        try:
            live[version] = load_live(self._registry, self._model, version, withdrawn=self._withdrawn)
        except Exception:
            self._failed[version] = time.monotonic()
            logger.exception("version %s of %s did not load and takes no traffic", version, self._model)
            return False
        return True


def load_live(registry: Registry, model: str, version: str, *, withdrawn: Collection[str] = ()) -> Live:
    """Load a registered version and let it score once, so that no member waits for a first time.

    Args:
        withdrawn: ids of titles that nobody is shown.

    Raises:
        NotFound: the registry has no such version.
    """
    found = registry.get(model, version)
    bundle = load_bundle(Path(found.path))
    _one_thread_each()
    live = Live(
        name=f"{model}/{found.version}",
        bundle=bundle,
        titles=Titles(bundle.catalogue, withdrawn=withdrawn),
    )
    _ = live.cold, live.columns, live.parts, live.batches, live.batches_by_part
    return live


def _parts(name: str, model: Model, query: Query) -> Mapping[str, Scores]:
    """Named parts that a model's scores are the sum of, float32 [m, titles]."""
    return model.score_parts(query) if isinstance(model, Explained) else {name: model.score(query)}


def _watched(history: Sequence[int]) -> Query:
    return Query(
        histories=[np.array(history, dtype=np.int32)],
        times=[np.zeros(len(history), dtype=np.int64)],
        now=np.array([time.time_ns() // 1000], dtype=np.int64),
    )


def _one_thread_each() -> None:
    """One torch thread a scoring thread: requests already share the cores."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)

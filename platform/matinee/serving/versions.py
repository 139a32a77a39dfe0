"""Which model versions are live, and for whom: followed from the split rows and the champion alias.

A replica polls; requests read one immutable `Plan`. A version takes traffic only once it is loaded
and has scored, so a change of weights neither restarts a replica nor makes a request wait.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np

from matinee.config import Settings
from matinee.errors import MatineeError, NotFound, Unavailable
from matinee.models.base import Model, Query, Scores
from matinee.models.bundle import Bundle, load_bundle
from matinee.models.products import Product
from matinee.registry.mlflow import CHAMPION, Registry
from matinee.serving.availability import ANYTHING, Listed
from matinee.serving.batches import Batches
from matinee.serving.columns import Columns
from matinee.serving.licences import Licences
from matinee.serving.place import Rules, place
from matinee.serving.rank import Titles
from matinee.serving.retrieval import Retriever, part_products
from matinee.serving.splits import Splits

POLL_S = 0.25
"""How often a replica looks for a changed split."""

CHAMPION_POLLS = 4
"""Polls between two looks at the alias, which moves rarely."""

RETRY_S = 5.0
"""Wait before a version that failed to load is tried again."""

NO_RULES = Rules()

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
        exact_titles: with more titles than this the best ones are found by an index; None: never.
    """

    name: str
    bundle: Bundle
    titles: Titles
    exact_titles: int | None = None

    @cached_property
    def columns(self) -> Columns:
        """The titles as pages read them."""
        return Columns(self.bundle, self.titles, indexed=self.large)

    @property
    def large(self) -> bool:
        """There are too many titles to score each for every request."""
        return self.exact_titles is not None and len(self.titles) > self.exact_titles

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
    def retriever(self) -> Retriever | None:
        """What finds the best of many titles; None: every title is scored, of few or by a model without
        products."""
        if not self.large:
            return None
        parts = part_products(self.bundle.name, self.bundle.model)
        return None if parts is None else Retriever(parts, self.cold)

    @cached_property
    def batches(self) -> Batches[Scores]:
        """What requests ask the version through."""
        return Batches(self.ask)

    @cached_property
    def batched_products(self) -> Batches[Product]:
        """What requests ask the version through that has a retriever."""
        assert self.retriever is not None
        return Batches(self.retriever.ask)

    @cached_property
    def batches_by_part(self) -> Mapping[str, Batches[Scores]]:
        """The same of the models inside it."""
        members: Mapping[str, Model] = getattr(self.bundle.model, "members", {})
        return {name: Batches(partial(_parts, name, model)) for name, model in members.items()}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who gets which version, complete: every version named here is loaded.

    Args:
        model: the registered model.
        champion: version that serves surfaces without a split; "" where there is none.
        rules: what is in force, by surface.
        live: loaded versions.
    """

    model: str
    champion: str = ""
    rules: Mapping[str, Rules] = field(default_factory=dict)
    live: Mapping[str, Live] = field(default_factory=dict)

    def of(self, surface: str) -> Rules:
        """What is in force on a surface."""
        return self.rules.get(surface, NO_RULES)

    def weights(self, surface: str) -> Mapping[str, float]:
        """Version to share on a surface; empty where nothing can serve it."""
        return self.of(surface).shares(self.champion)

    def version(
        self, member_id: str, surface: str, traits: Mapping[str, str | float] = MappingProxyType({})
    ) -> tuple[str, Live]:
        """The cell a member is in on a surface, and its version.

        Raises:
            Unavailable: no version is live for the surface.
        """
        placed = place(member_id, self.of(surface), model=self.model, champion=self.champion, traits=traits)
        if placed is None:
            raise Unavailable(
                f"no version of model {self.model} is live for surface {surface}: "
                f"alias {CHAMPION} names none and no split is set"
            )
        cell, version = placed
        return cell, self.live[version]

    def shadow(self, surface: str, request_id: str) -> Live | None:
        """The version that scores a request without being shown, if one does."""
        shadow = self.of(surface).shadow
        return self.live[shadow.version] if shadow and shadow.takes(request_id) else None


class LiveVersions:
    """Keeps `plan` in step with the database and the registry until closed.

    Args:
        settings: model name, state database and registry.
    """

    def __init__(self, settings: Settings) -> None:
        self._model = settings.serving.model
        self._exact_titles = settings.serving.exact_titles
        self._splits = Splits(settings)
        self._licences = Licences(settings)
        self._listed = ANYTHING
        self._registry = Registry(settings)
        self._failed: dict[str, float] = {}
        self._loading: dict[str, Future[Live]] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load-version")
        self._troubles: dict[str, str] = {}
        self._champion = ""
        self._wanted: Mapping[str, Rules] = {}
        self._polls = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="live-versions", daemon=True)
        self.plan = Plan(model=self._model)

    def start(self) -> None:
        """Load what is live now, then follow changes on a thread."""
        self._try_refresh(wait=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._loader.shutdown(cancel_futures=True)
        self._splits.close()
        self._licences.close()

    def refresh(self, *, wait: bool = True) -> None:
        """Look once. What needs a version that is not loaded stays as it was; all else takes effect.

        The alias is read again with every change of the rules, so that the end of a rollout and the
        promotion before it are one change for members.

        Args:
            wait: for versions to load; without it they are loaded beside, for a later look.
        """
        if self._licences.newest() != self._listed.number:
            self._listed = self._licences.listed()
            self.plan = replace(self.plan)  # another object: what was shown under the last may not be now
        wanted = self._splits.rules()
        if self._polls % CHAMPION_POLLS == 0 or wanted != self._wanted:
            self._champion = self._aliased()
        self._polls += 1
        self._wanted = wanted
        old = self.plan
        live = dict(old.live)

        def loaded(versions: Iterable[str]) -> bool:
            return all(self._load(version, live, wait) for version in versions)

        champion = self._champion if loaded([self._champion]) else old.champion
        rules = {}
        for surface in wanted.keys() | old.rules.keys():
            found = _applied(wanted.get(surface, NO_RULES), old.of(surface), loaded)
            if found != NO_RULES:
                rules[surface] = found
        self._loading = {version: load for version, load in self._loading.items() if not load.done()}
        if (champion, rules) != (old.champion, old.rules):
            needed = {champion}.union(*map(_versions, rules.values()))
            self.plan = Plan(
                model=self._model,
                champion=champion,
                rules=MappingProxyType(rules),
                live={version: live[version] for version in needed if version},
            )
            logger.info("live now: champion %s, rules %s", champion or "none", rules)

    def _follow(self) -> None:
        while not self._stop.wait(POLL_S):
            self._try_refresh(wait=False)

    def _try_refresh(self, *, wait: bool) -> None:
        try:
            self.refresh(wait=wait)
            self._tell("live versions", "")
        except Exception as failure:
            self._tell("live versions", f"{type(failure).__name__}: {failure}")

    def _tell(self, what: str, trouble: str) -> None:
        if trouble and trouble != self._troubles.get(what):
            logger.warning("%s: stays as it is: %s", what, trouble)
        self._troubles[what] = trouble

    def _aliased(self) -> str:
        """The champion's version; the one known before where the registry does not answer."""
        trouble, found = "", self._champion
        try:
            found = self._registry.get(self._model, CHAMPION).version
        except NotFound:
            found = ""
        except MatineeError as failure:
            trouble = str(failure)
        self._tell("champion", trouble)
        return found

    def _load(self, version: str, live: dict[str, Live], wait: bool) -> bool:
        if not version or version in live:
            return bool(version)
        if self._failed.get(version, -RETRY_S) + RETRY_S > time.monotonic():
            return False
        if version not in self._loading:
            self._loading[version] = self._loader.submit(
                load_live,
                self._registry,
                self._model,
                version,
                listed=lambda: self._listed,
                exact_titles=self._exact_titles,
            )
        if not (wait or self._loading[version].done()):
            return False
        try:
            live[version] = self._loading.pop(version).result()
        except Exception:
            self._failed[version] = time.monotonic()
            logger.exception("version %s of %s did not load and takes no traffic", version, self._model)
            return False
        return True


def _versions(rules: Rules) -> set[str]:
    """Every version that rules name."""
    cells = {*rules.members.values(), *rules.segments.values()}
    arms = rules.trial.arms.values() if rules.trial else ()
    found = {*rules.weights, *(arm.version for arm in arms), *map(rules.version_of, cells)}
    if rules.shadow:
        found.add(rules.shadow.version)
    return {version for version in found if version}


def _applied(wanted: Rules, old: Rules, loaded: Callable[[Iterable[str]], bool]) -> Rules:
    """What of `wanted` has its versions loaded; in place of a split or a trial that has not, the old one."""
    weights = wanted.weights if loaded(wanted.weights) else old.weights
    arms = wanted.trial.arms.values() if wanted.trial else ()
    trial = wanted.trial if loaded(arm.version for arm in arms) else old.trial
    shadow = wanted.shadow if wanted.shadow and loaded([wanted.shadow.version]) else None

    def ready(cells: Mapping[str, str]) -> dict[str, str]:
        return {name: cell for name, cell in cells.items() if loaded(filter(None, [wanted.version_of(cell)]))}

    members, segments = ready(wanted.members), ready(wanted.segments)
    return Rules(weights=weights, trial=trial, members=members, segments=segments, shadow=shadow)


def load_live(
    registry: Registry,
    model: str,
    version: str,
    *,
    listed: Callable[[], Listed] = lambda: ANYTHING,
    exact_titles: int | None = None,
) -> Live:
    """Load a registered version and let it score once, so that no member waits for a first time.

    Args:
        listed: as in `rank.Titles`.
        exact_titles: as in `Live`.

    Raises:
        NotFound: the registry has no such version.
    """
    found = registry.get(model, version)
    bundle = load_bundle(Path(found.path))
    _one_thread_each()
    live = Live(
        name=f"{model}/{found.version}",
        bundle=bundle,
        titles=Titles(bundle.catalogue, listed),
        exact_titles=exact_titles,
    )
    _ = live.cold, live.columns, live.parts, live.batches, live.batches_by_part
    if live.retriever is not None:
        _ = live.batched_products
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

"""What recommenders are asked in a benchmark: what they learn, whom they rank for, what was watched next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.common import ROOT
from benchmarks.peers.recommend import Ragged, Task, joined
from matinee.config import Home
from matinee.errors import NotFound
from matinee.features.titles import genre_names, genres_of
from matinee.features.transforms import ROW_SCHEMA, VIEWS, watches_of
from matinee.features.vectors import member_vector
from matinee.models.base import Query, TrainingSet
from matinee.schema import CATALOGUE_SCHEMA, Catalogue, Features, Interactions
from matinee.sources import movielens
from matinee.sources.dataset import Dataset
from matinee.training import evaluate
from matinee.training.parts import protocol_set, replay_set

SHARED = ROOT.parent / "shared" / "data"
"""Where data sets lie that a benchmark reads and does not fetch."""
EVENTS = 5_000
"""Most events that a replay asks about: a seeded sample of the replayed ones."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One protocol's question.

    Args:
        learned: what models may learn from.
        query: whom to rank for, q of them, and what was known then.
        members: int32 [q], who they are.
        relevant: per query, positions of the titles watched after it: what the protocol asks for.
    """

    learned: TrainingSet
    query: Query
    members: npt.NDArray[np.int32]
    relevant: Ragged

    def task(self, *, answers: bool) -> Task:
        """The same for a peer's script; with `answers`, what it may choose its epochs by."""
        watched = self.learned.interactions
        history, bounds = joined(self.query.histories)
        answer, answer_bounds = joined(self.relevant if answers else [])
        return Task(
            member=watched.member,
            title=watched.title,
            asked=self.members,
            history=history,
            bounds=bounds,
            answer=answer,
            answer_bounds=answer_bounds,
            members=len(watched.member_ids),
            titles=len(watched.title_ids),
        )


Protocol = Callable[[TrainingSet], Question]


def per_member(everything: TrainingSet) -> Question:
    """Each member's last fifth is asked for, at the moment it begins."""
    split = evaluate.per_member(everything.interactions)
    learned, cases = protocol_set(split, everything.catalogue, everything.member_features)
    return Question(learned=learned, query=cases.query, members=cases.members, relevant=cases.relevant)


def prequential(everything: TrainingSet) -> Question:
    """Fitted on the first four fifths in time; each later event is asked for at its moment, from what its
    member had watched by then. At most EVENTS of them, drawn with a seed."""
    split, features = evaluate.global_time(everything.interactions), everything.member_features
    learned, _ = protocol_set(split, everything.catalogue, features)
    cases = replay_set(split, features, limit=EVENTS, seed=0)
    return Question(learned=learned, query=cases.query, members=cases.members, relevant=cases.relevant)


PROTOCOLS: dict[str, Protocol] = {"per_member": per_member, "prequential": prequential}


def load(name: str, folder: Path) -> TrainingSet:
    """A MovieLens data set with all its interactions, and features as the store would hold them.

    Args:
        folder: where fetched data is kept.

    Raises:
        NotFound: it is neither fetched nor beside the checkout.
        Unavailable: it cannot be fetched.
    """
    home = Home(folder)
    source = SHARED / name.removeprefix("movielens-").replace("latest", "ml-latest")
    if name == "movielens-100k":
        movielens.get(name, home)
    elif source.is_dir():
        movielens.get(name, home, source=source)
    else:
        raise NotFound(f"{source} is missing")
    dataset = movielens.load(name, home)
    watched = interactions(dataset)
    return TrainingSet(
        interactions=watched,
        catalogue=dataset.catalogue,
        member_features=member_features(dataset.events, watched, dataset.catalogue),
    )


def bare_catalogue(title_ids: Sequence[str]) -> Catalogue:
    """Titles of which nothing is known but their ids."""
    lists: dict[str, list[str]] = {name: [] for name in ("genres", "cast", "keywords")}
    rows = [{"title_id": each, "name": each, **lists} for each in title_ids]
    return Catalogue(table=pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA))


def interactions(dataset: Dataset) -> Interactions:
    """A data set's ratings; each pair of member and title stands once in it."""
    events = dataset.events
    member_ids = pa.array(sorted(pc.unique(events["member_id"]).to_pylist()), pa.string())
    title_ids = pa.array(dataset.catalogue.title_ids, pa.string())
    return Interactions(
        member_ids=member_ids.to_pylist(),
        title_ids=title_ids.to_pylist(),
        member=pc.index_in(events["member_id"], member_ids).to_numpy().astype(np.int32),
        title=pc.index_in(events["title_id"], title_ids).to_numpy().astype(np.int32),
        time=events["event_time"].cast(pa.int64()).to_numpy(),
        value=events["value"].to_numpy().astype(np.float32),
    )


def member_features(events: pa.Table, watched: Interactions, catalogue: Catalogue) -> Features:
    """What the offline store would answer as of a microsecond before each interaction: the row of the
    member's last earlier moment, from the product's own transforms."""
    order = np.lexsort((watched.time, watched.member))
    member, time = watched.member[order], watched.time[order]
    opens = np.r_[True, (np.diff(member) != 0) | (np.diff(time) != 0)]
    first = np.maximum.accumulate(np.where(opens, np.arange(len(order)), 0))
    known = (first > 0) & (member[np.maximum(first - 1, 0)] == member)
    names = pa.array(watched.member_ids, pa.string()).take(pa.array(member[known]))
    asked = pa.table([names, pa.array(time[first[known] - 1])], schema=ROW_SCHEMA)
    count = events.num_rows
    arrival = pa.table({"partition": np.zeros(count, np.int32), "offset": np.arange(count)})
    for column in arrival.column_names:
        events = events.append_column(column, arrival[column])
    watches, genres = watches_of(events), genres_of(catalogue)
    found = [VIEWS[view].transform(watches, asked, genres) for view in ("member_activity", "member_affinity")]
    columns = {name: table[name] for table in found for name in table.column_names}
    place = np.full(len(order), -1)
    place[order[known]] = np.arange(known.sum())
    return member_vector(pa.table(columns).take(pa.array(place, mask=place < 0)), genre_names(catalogue))

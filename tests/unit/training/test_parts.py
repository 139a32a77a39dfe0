from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import world_examples

from matinee.events import lake
from matinee.events.outcomes import TYPES, outcomes
from matinee.models.ensemble.holdout import inner_set, split_holdout
from matinee.schema import CATALOGUE_SCHEMA, Catalogue, Features, Interactions, Outcomes
from matinee.training import evaluate, parts
from matinee.training.pipeline import SPLITS

DAY = 86_400_000_000
CATALOGUE = Catalogue(
    table=pa.Table.from_pylist(
        [{"title_id": f"t{i}", "name": "", "genres": [], "cast": [], "keywords": []} for i in range(4)],
        schema=CATALOGUE_SCHEMA,
    )
)
WATCHED = Interactions(
    member_ids=["m0", "m1"],
    title_ids=CATALOGUE.title_ids,
    member=np.array([0, 0, 0, 1, 0, 0, 1], np.int32),
    title=np.array([0, 1, 2, 0, 3, 1, 3], np.int32),
    time=np.arange(1, 8) * DAY,
    value=np.array([4, np.nan, 3, 2, 5, 1, 1], np.float32),
)
MEMBER_FEATURES = Features(names=["row"], values=np.arange(7, dtype=np.float32)[:, None])


def column(features: Features, name: str) -> list[float]:
    return features.values[:, list(features.names).index(name)].tolist()


def test_title_features_count_the_training_part_alone():
    split = evaluate.global_time(WATCHED, share=0.5)
    learned, _ = parts.protocol_set(split, CATALOGUE, MEMBER_FEATURES)
    assert learned.title_features is not None
    assert np.nan_to_num(column(learned.title_features, "plays_all")).tolist() == [2, 1, 1, 0]
    assert column(learned.title_features, "rating_mean_all")[0] == 3
    assert np.isnan(column(learned.title_features, "rating_mean_all")[1])


def test_member_features_follow_their_interactions():
    split = evaluate.per_member(WATCHED)
    learned, cases = parts.protocol_set(split, CATALOGUE, MEMBER_FEATURES)
    assert learned.member_features is not None
    assert learned.member_features.values[:, 0].tolist() == split.train_rows.tolist()
    assert cases.query.member_features is not None
    assert cases.query.member_features.values[:, 0].tolist() == [5]
    assert cases.query.now.tolist() == [6 * DAY]


def test_features_may_be_absent():
    learned, cases = parts.protocol_set(evaluate.per_member(WATCHED), CATALOGUE, None)
    assert learned.member_features is None
    assert cases.query.member_features is None


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    root: Path = tmp_path_factory.mktemp("lake")
    dataset = world_examples.dataset()
    world_examples.fill(root, dataset.events)
    return lake.read_interactions(root, dataset.catalogue)


def same(one: Outcomes, other: Outcomes) -> None:
    for name, values in vars(one).items():
        np.testing.assert_allclose(values, getattr(other, name), rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", SPLITS)
def test_no_later_event_changes_the_outcomes_that_are_learned(name: str, watched: Interactions) -> None:
    """Whatever came after a member's last known watch, in whichever session: other titles, types, seconds."""
    dataset = world_examples.dataset()
    split = SPLITS[name](watched)

    def learned(events: pa.Table) -> Outcomes:
        told = outcomes(events, dataset.catalogue, watched.member_ids)
        part, _ = parts.protocol_set(split, dataset.catalogue, None, told)
        assert part.outcomes is not None
        return part.outcomes

    last = np.zeros(len(watched.member_ids), np.int64)
    np.maximum.at(last, split.train.member, split.train.time)
    members = pa.array(watched.member_ids, pa.string())
    events = dataset.events.filter(pc.is_in(dataset.events["member_id"], members))
    events = events.filter(pc.is_in(events["type"], pa.array(map(str, TYPES))))
    owner = pc.index_in(events["member_id"], members).to_numpy()
    later = events["event_time"].cast(pa.int64()).to_numpy() > last[owner]
    generator = np.random.default_rng(0)
    changed = {
        "type": generator.choice([str(kind) for kind in TYPES], len(events)),
        "title_id": generator.choice(dataset.catalogue.title_ids, len(events)),
        "value": generator.random(len(events)) * 1e5,
    }
    others = events
    for column, values in changed.items():
        mixed = pc.if_else(pa.array(later), pa.array(values), events[column])
        others = others.set_column(others.column_names.index(column), column, mixed)
    assert 0.05 < later.mean() < 0.6
    assert len(learned(events)) > 0.3 * len(outcomes(events, dataset.catalogue, watched.member_ids))
    same(learned(events), learned(others))


def test_the_part_that_members_of_an_ensemble_learn_from_knows_less(watched: Interactions) -> None:
    catalogue = world_examples.dataset().catalogue
    told = outcomes(world_examples.dataset().events, catalogue, watched.member_ids)
    learned, _ = parts.protocol_set(evaluate.per_member(watched), catalogue, None, told)
    holdout = split_holdout(learned, seed=0)
    inner = inner_set(learned, holdout)
    assert learned.outcomes is not None
    assert inner.outcomes is not None
    assert 0 < len(inner.outcomes) < len(learned.outcomes)
    last = np.zeros(len(watched.member_ids), np.int64)
    np.maximum.at(last, inner.interactions.member, inner.interactions.time)
    assert (inner.outcomes.ended <= last[inner.outcomes.member]).all()

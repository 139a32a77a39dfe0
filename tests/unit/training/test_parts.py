import numpy as np
import pyarrow as pa

from matinee.schema import CATALOGUE_SCHEMA, Catalogue, Features, Interactions
from matinee.training import evaluate, parts

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

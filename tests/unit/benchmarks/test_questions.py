import numpy as np
import pyarrow as pa
import pytest
from benchmarks.questions import member_features, per_member, prequential

from matinee.features.transforms import HOUR
from matinee.models.base import TrainingSet
from matinee.schema import CATALOGUE_SCHEMA, EVENT_SCHEMA, TIMESTAMP, Catalogue, Features, Interactions

GENRES = [["Comedy"], ["Drama"], ["Comedy", "Drama"], [], ["Drama"]]


def catalogue():
    rows = [
        {"title_id": f"t{i}", "name": f"Title {i}", "genres": genres, "cast": [], "keywords": []}
        for i, genres in enumerate(GENRES)
    ]
    return Catalogue(table=pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA))


def interactions(member, title, time):
    return Interactions(
        member_ids=["a", "b"],
        title_ids=[f"t{i}" for i in range(len(GENRES))],
        member=np.array(member, np.int32),
        title=np.array(title, np.int32),
        time=np.array(time, np.int64),
        value=np.full(len(member), 5, np.float32),
    )


@pytest.fixture
def everything():
    watched = interactions([0, 1, 0, 1, 0, 0, 1, 0, 1, 1], [0, 1, 1, 2, 2, 3, 0, 4, 3, 4], range(10))
    features = Features(names=["row"], values=np.arange(10, dtype=np.float32)[:, None])
    return TrainingSet(interactions=watched, catalogue=catalogue(), member_features=features)


def test_a_replay_asks_for_each_later_event_from_what_went_before(everything):
    question = prequential(everything)
    assert len(question.learned.interactions) == 8
    assert question.members.tolist() == [1, 1]
    assert [each.tolist() for each in question.query.histories] == [[1, 2, 0], [1, 2, 0, 3]]
    assert [each.tolist() for each in question.query.times] == [[1, 3, 6], [1, 3, 6, 8]]
    assert question.query.now.tolist() == [8, 9]
    assert question.query.member_features.values.ravel().tolist() == [8, 9]
    assert [each.tolist() for each in question.relevant] == [[3], [4]]


def test_a_replay_of_many_events_asks_about_a_sample_in_order(everything, monkeypatch):
    monkeypatch.setattr("benchmarks.questions.EVENTS", 1)
    assert len(prequential(everything).query) == 1


def test_a_question_of_the_training_data_knows_nothing_of_the_test(everything):
    for protocol in (per_member, prequential):
        question = protocol(everything)
        inner = protocol(question.learned)
        held = {(m, t) for m, each in zip(question.members, question.relevant, strict=True) for t in each}
        known = {(m, t) for m, each in zip(inner.members, inner.relevant, strict=True) for t in each}
        known |= set(zip(inner.learned.interactions.member, inner.learned.interactions.title, strict=True))
        assert not held & known


def test_a_scripts_task_says_what_the_question_does(everything):
    question = per_member(everything)
    task = question.task(answers=True)
    assert (task.members, task.titles) == (2, 5)
    assert task.asked.tolist() == question.members.tolist()
    assert [each.tolist() for each in task.histories] == [each.tolist() for each in question.query.histories]
    assert [each.tolist() for each in task.answers] == [each.tolist() for each in question.relevant]
    assert not len(question.task(answers=False).answer)


def test_features_are_those_of_the_members_last_earlier_moment():
    times = [0, 0, HOUR // 2, HOUR // 2, 5 * HOUR]
    watched = interactions([0, 1, 0, 0, 0], [0, 1, 1, 2, 3], times)
    columns = {
        "event_id": [str(i) for i in range(5)],
        "type": ["rate"] * 5,
        "member_id": [watched.member_ids[i] for i in watched.member],
        "title_id": [watched.title_ids[i] for i in watched.title],
        "event_time": pa.array(times).cast(TIMESTAMP),
        "value": [5.0] * 5,
    }
    arrays = [pa.array(columns.get(each.name, [None] * 5), each.type) for each in EVENT_SCHEMA]
    events = pa.Table.from_arrays(arrays, names=EVENT_SCHEMA.names)
    found = member_features(events, watched, catalogue())
    plays = found.values[:, found.names.index("plays_1h")]
    np.testing.assert_array_equal(plays, [np.nan, np.nan, 1, 1, 3])
    drama = found.values[:, found.names.index("affinity[Drama]")]
    np.testing.assert_allclose(drama, [np.nan, np.nan, 0, 0, 1.5])

import math

import numpy as np
import pytest
from benchmarks.peers.recommend import LENGTH, Task, accuracy, joined, parted, rank, top, train
from hypothesis import given
from hypothesis import strategies as st

from matinee.training import evaluate


def task(answers=((3,), (0, 1))):
    """Two members, five titles; both have watched title 2, the second one title 4 too."""
    history, bounds = joined([np.array(each, np.int32) for each in ([2], [2, 4])])
    answer, answer_bounds = joined([np.array(each, np.int32) for each in answers])
    return Task(
        member=np.array([0, 1, 1], np.int32),
        title=np.array([2, 2, 4], np.int32),
        asked=np.array([0, 1], np.int32),
        history=history,
        bounds=bounds,
        answer=answer,
        answer_bounds=answer_bounds,
        members=2,
        titles=5,
    )


def test_a_task_comes_back_as_it_was_written(tmp_path):
    given_task = task()
    given_task.write(str(tmp_path / "task.npz"))
    found = Task.read(str(tmp_path / "task.npz"))
    for name, value in vars(given_task).items():
        np.testing.assert_array_equal(getattr(found, name), value, strict=not np.isscalar(value))
    assert [each.tolist() for each in found.histories] == [[2], [2, 4]]
    assert [each.tolist() for each in found.answers] == [[3], [0, 1]]


@given(st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=6))
def test_parts_that_are_joined_part_again(parts):
    flat, bounds = joined([np.array(part, np.int32) for part in parts])
    assert [part.tolist() for part in parted(flat, bounds)] == parts


@given(st.data(), st.integers(1, 4), st.sampled_from([5, LENGTH - 1, LENGTH, LENGTH + 7]))
def test_lists_are_those_of_the_evaluator(data, rows, titles):
    seed = data.draw(st.integers(0, 1000))
    scores = np.random.default_rng(seed).integers(0, 9, (rows, titles)).astype(np.float32)
    seen = [np.array(sorted(data.draw(st.sets(st.integers(0, titles - 1)))), np.int32) for _ in range(rows)]
    expected = evaluate.top(scores, seen, LENGTH)
    for row, positions in enumerate(seen):
        scores[row, positions] = -np.inf
    np.testing.assert_array_equal(top(scores), expected)


def test_a_query_without_a_word_of_the_model_gets_what_is_popular():
    scores = np.array([[np.nan] * 5, [5, np.nan, 3, np.nan, 1]], np.float32)
    lists = rank(task(), lambda rows: scores[rows])
    assert lists[0, :4].tolist() == [4, 0, 1, 3]
    assert lists[1, :2].tolist() == [0, -1]


@given(st.integers(0, 1000))
def test_accuracy_is_that_of_a_count_by_hand(seed):
    draw = np.random.default_rng(seed)
    lists = np.stack([draw.permutation(200)[:LENGTH] for _ in range(3)]).astype(np.int32)
    answers = [draw.permutation(200)[: draw.integers(1, 40)].astype(np.int32) for _ in range(3)]
    found = accuracy(lists, answers)
    for row, answer in enumerate(answers):
        places = [place for place, title in enumerate(lists[row][:20]) if title in answer]
        gain = sum(1 / math.log2(place + 2) for place in places)
        ideal = sum(1 / math.log2(place + 2) for place in range(min(len(answer), 20)))
        assert found["ndcg@20"][row] == pytest.approx(gain / ideal)
        assert found["recall@20"][row] == pytest.approx(len(places) / len(answer))


def test_the_reciprocal_rank_is_that_of_the_first_hit():
    lists = np.array([[7, 3, 5, -1], [1, 2, 4, 6]], np.int32)
    lists = np.pad(lists, ((0, 0), (0, LENGTH - 4)), constant_values=-1)
    found = accuracy(lists, [np.array([5, 3], np.int32), np.array([9], np.int32)])
    assert found["mrr@100"].tolist() == [0.5, 0.0]


class Learner:
    """After epoch e its best title for everyone is `answers[e - 1]`."""

    def __init__(self, *answers):
        self.answers, self.epoch = answers, 0

    def step(self, left):
        self.epoch += 1

    def score(self, rows):
        scores = np.zeros((len(rows), 5), np.float32)
        scores[:, self.answers[min(self.epoch, len(self.answers)) - 1]] = 1
        return scores


def test_the_best_epochs_lists_are_kept():
    learner = Learner(4, 4, 3, 0)
    lists, found = train(task([[3], [3]]), learner.step, learner.score, epochs=4, budget_s=60)
    assert lists[:, 0].tolist() == [3, 3]
    assert (found["epochs"], found["best"], learner.epoch) == (3, 1.0, 4)


def test_without_answers_the_last_epoch_counts():
    learner = Learner(*[4] * 29, 0)
    lists, found = train(task([]), learner.step, learner.score, epochs=30, budget_s=60)
    assert (lists[0, 0], found["epochs"]) == (0, 30)


def test_training_ends_with_its_budget():
    learner = Learner(3)
    _, found = train(task([]), learner.step, learner.score, epochs=100, budget_s=0.0)
    assert (learner.epoch, found["epochs"]) == (1, 1)


def test_training_ends_where_it_is_good_enough():
    learner = Learner(3)
    train(task([[3], [3]]), learner.step, learner.score, epochs=100, budget_s=60, enough=0.9)
    assert learner.epoch == 1


def test_training_ends_long_after_its_best_epoch():
    learner = Learner(3, 0)
    _, found = train(task([[3], [3]]), learner.step, learner.score, epochs=1000, budget_s=60)
    assert found["epochs"] == 1
    assert learner.epoch == pytest.approx(13, abs=2)


def test_only_queries_with_an_answer_choose_the_epoch():
    learner = Learner(0, 0, 3)
    _, found = train(task([[3], []]), learner.step, learner.score, epochs=3, budget_s=60)
    assert (found["epochs"], found["best"]) == (3, 1.0)


class Cut(Exception):
    pass


class Memory:
    """A checkpoint of a `Learner`; its `cut`-th save is the last thing that a process does."""

    def __init__(self, cut):
        self.cut, self.state = cut, None

    def load(self):
        if self.state is None:
            return None
        self.learner.epoch, course = self.state
        return dict(course)

    def save(self, course):
        self.state = self.learner.epoch, dict(course)
        if self.learner.epoch == self.cut:
            raise Cut


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_training_that_was_cut_off_goes_on_where_it_was(cut):
    memory = Memory(cut)
    memory.learner = Learner(4, 4, 3, 0)
    limits = {"epochs": 4, "budget_s": 60, "checkpoint": memory}
    with pytest.raises(Cut):
        train(task([[3], [3]]), memory.learner.step, memory.learner.score, **limits)
    memory.learner, memory.cut = Learner(4, 4, 3, 0), None
    lists, found = train(task([[3], [3]]), memory.learner.step, memory.learner.score, **limits)
    assert memory.learner.epoch == 4
    assert (lists[0, 0], found["epochs"]) == (3, 3)

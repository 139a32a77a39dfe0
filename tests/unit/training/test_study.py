import json
import time
from pathlib import Path

import pytest

from matinee.errors import InvalidInput, StorageError, Unavailable
from matinee.training.study import Study, Trial, best, opened, unfinished

PINS = {"data": "abc", "space": {"x": "Real"}}


def journal(folder: Path) -> Path:
    return folder / "journal.jsonl"


def test_what_was_noted_is_read_again(tmp_path: Path):
    with opened(tmp_path / "s", PINS) as study:
        study.begin("a", {"x": 0.1, "y": None})
        study.report("a", 25.0, 0.5)
        study.report("a", 100.0, 0.75)
        study.end("a", "finished")
        study.begin("b", {"x": 0.2, "y": "z"})
        study.report("b", 25.0, 0.25)
        study.end("b", "failed", "ValueError: no")
    with opened(tmp_path / "s", PINS) as again, opened(tmp_path / "t", PINS) as other:
        assert again.trials == study.trials
        assert (again.id, again.name) == (study.id, "s")
        assert other.id != study.id
        first, second = again.trials.values()
        assert (first.value, second.value, second.reason) == (0.75, None, "ValueError: no")
        assert first.point == {"x": 0.1, "y": None}
        assert 0 <= first.seconds < 5


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_line_that_was_cut_off_is_as_if_never_written(tmp_path: Path, cut: int):
    with opened(tmp_path, PINS) as study:
        study.begin("a", {"x": 1})
        study.report("a", 25.0, 0.5)
        study.end("a", "stopped")
    whole = journal(tmp_path).read_bytes()
    journal(tmp_path).write_bytes(whole[:-cut])
    with opened(tmp_path, PINS) as again:
        assert again.trials["a"].end is None
        assert again.trials["a"].reports == study.trials["a"].reports
        again.end("a", "lost")
    assert [json.loads(line) for line in journal(tmp_path).read_text().splitlines()][-1]["end"] == "lost"


def test_a_trial_that_begins_anew_forgets_what_its_lost_process_said(tmp_path: Path):
    with opened(tmp_path, PINS) as study:
        study.begin("a", {"x": 1})
        study.report("a", 25.0, 0.5)
        study.begin("a", {"x": 1})
        assert study.trials["a"].reports == []


def test_time_is_added_up_over_sessions_and_not_between_them(tmp_path: Path):
    with opened(tmp_path, PINS) as study:
        time.sleep(0.05)
        study.spend()
        spent = study.spent_s
    assert 0.05 <= spent < 1
    time.sleep(0.3)
    with opened(tmp_path, PINS) as again:
        assert again.spent_s == spent
        again.spend()
        assert spent < again.spent_s < spent + 0.25


def test_one_process_at_a_time(tmp_path: Path):
    with opened(tmp_path, PINS), pytest.raises(Unavailable, match="another process works on study"):
        opened(tmp_path, PINS).__enter__()
    with opened(tmp_path, PINS) as free:
        assert isinstance(free, Study)


def test_other_data_is_another_study(tmp_path: Path):
    with opened(tmp_path / "s", PINS):
        pass
    with pytest.raises(InvalidInput, match=r"study s was started with other data: .* another --name"):
        opened(tmp_path / "s", {**PINS, "data": "abd"}).__enter__()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file/s cannot be written"):
        opened(tmp_path / "file" / "s", PINS).__enter__()


def trial(name: str, x: float, end: str | None, value: float = 0.0) -> Trial:
    from matinee.training.study import Report

    return Trial(id=name, point={"x": x}, at=0, end=end, reports=[Report(percent=100, value=value, at=1)])


def test_the_best_are_finished_ones():
    tried = [
        trial("a", 1, "finished", 0.1),
        trial("b", 2, "stopped", 0.9),
        trial("c", 3, "finished", 0.3),
        trial("d", 4, None, 0.8),
        trial("e", 5, "finished", 0.3),
    ]
    assert [one.id for one in best(tried)] == ["c", "e", "a"]


def test_points_cut_off_are_tried_again_once():
    tried = [
        trial("a", 1, "finished"),
        trial("b", 2, "lost"),
        trial("c", 2, "stopped"),
        trial("d", 3, "lost"),
        trial("e", 3, None),
        trial("f", 4, None),
    ]
    assert unfinished(tried) == [{"x": 3}, {"x": 4}]

import gzip
from pathlib import Path

import pytest

from matinee.errors import InvalidInput, NotFound
from matinee.sources.published import read_sequences, read_user_split


def written(path: Path, text: str) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", ["txt", "txt.gz"])
def test_a_user_split_has_one_vocabulary(tmp_path: Path, suffix: str):
    parts = {"train": "0 3 1\n1 3\n7\n", "test": "0 2\n4 1\n"}
    train, test = read_user_split(*(written(tmp_path / f"{part}.{suffix}", parts[part]) for part in parts))
    assert list(train.member_ids) == list(test.member_ids) == ["0", "1", "4"]
    assert list(train.title_ids) == list(test.title_ids) == ["1", "2", "3"]
    assert [titles.tolist() for titles in train.histories()] == [[2, 0], [2], []]
    assert [titles.tolist() for titles in test.histories()] == [[1], [], [0]]
    assert not train.time.any()


def test_sequences_keep_their_order(tmp_path: Path):
    found = read_sequences(written(tmp_path / "video.txt", "1 5\n1 2\n2 5\n1 9\n2 2\n"))
    assert list(found.member_ids) == ["1", "2"]
    assert list(found.title_ids) == ["2", "5", "9"]
    assert [titles.tolist() for titles in found.histories()] == [[1, 0, 2], [1, 0]]
    assert found.time.tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n1 x\n", r"line 2: '1 x'; numbers"),
        ("1 2\n1 -3\n", r"line 2: '1 -3'; numbers"),
        ("1 2\n1 2 3\n", r"line 2: 3 numbers; two"),
        ("1 2\n2 2\n1 2\n", r"user 1 and item 2 stand together twice"),
    ],
)
def test_what_is_wrong_with_sequences_is_named(tmp_path: Path, text: str, message: str):
    with pytest.raises(InvalidInput, match=message):
        read_sequences(written(tmp_path / "video.txt", text))


def test_a_pair_in_both_parts_is_named(tmp_path: Path):
    parts = written(tmp_path / "train.txt", "0 1 2\n"), written(tmp_path / "test.txt", "0 2\n")
    with pytest.raises(InvalidInput, match="user 0 and item 2 stand together twice"):
        read_user_split(*parts)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(NotFound, match=r"none\.txt is missing"):
        read_sequences(tmp_path / "none.txt")

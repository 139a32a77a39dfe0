from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from s3_server import BUCKET, s3_server

from matinee.training.checkpoints import FitCheckpoints


def writes(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "state").write_text(text)

    return write


def made(root: str, name: str = "run/all.dnn", *, writes: bool = True) -> FitCheckpoints:
    return FitCheckpoints(root, name, every=5, writes=writes)


def read(root: str, name: str = "run/all.dnn") -> str | None:
    with made(root, name, writes=False) as other:
        folder = other.latest()
        return None if folder is None else (folder / "state").read_text()


def test_the_latest_is_kept_and_found_by_another_process(tmp_path: Path) -> None:
    root = str(tmp_path)
    kept = made(root)
    assert kept.every == 5
    assert read(root) is None
    for step in (5, 10, 100):
        kept.keep(step, writes(f"at {step}"))
        assert read(root) == f"at {step}"
    assert read(root, "run/all.gnn") is None
    assert [path.read_text() for path in tmp_path.rglob("state")] == ["at 100"]
    kept.forget()
    assert read(root) is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    kept.forget()


def test_one_worker_writes(tmp_path: Path) -> None:
    other = made(str(tmp_path), writes=False)
    other.keep(5, writes("other"))
    assert read(str(tmp_path)) is None
    made(str(tmp_path)).keep(5, writes("one"))
    other.forget()
    assert read(str(tmp_path)) == "one"


def test_a_step_that_was_not_written_whole_does_not_count(tmp_path: Path) -> None:
    root = str(tmp_path)
    kept = made(root)
    kept.keep(5, writes("whole"))

    def dies(folder: Path) -> None:
        (folder / "state").write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.keep(10, dies)
    assert read(root) == "whole"
    half = tmp_path / "run/all.dnn" / f"{10:012d}"
    half.mkdir()
    (half / "state").write_text("ha")
    assert read(root) == "whole"
    kept.keep(10, writes("again"))
    assert read(root) == "again"


def test_a_step_kept_twice_is_the_later(tmp_path: Path) -> None:
    for text in ("one", "two"):
        made(str(tmp_path)).keep(5, writes(text))
    assert read(str(tmp_path)) == "two"


def test_on_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(monkeypatch) as endpoint:
        root = f"s3://{BUCKET}/fits?endpoint_override={endpoint}&region=us-east-1"
        kept = made(root)
        assert read(root) is None
        kept.keep(5, writes("five"))
        kept.keep(10, writes("ten"))
        assert read(root) == "ten"
        kept.forget()
        assert read(root) is None

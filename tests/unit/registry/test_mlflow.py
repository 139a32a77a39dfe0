import json
import logging
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matinee.config import Settings
from matinee.errors import InvalidInput, NotFound, StorageError, Unavailable
from matinee.registry.mlflow import CHAMPION, MANIFEST, Registry


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def registry(settings: Settings) -> Registry:
    return Registry(settings)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights.bin").write_bytes(b"\x00\x01")
    (folder / "card.md").write_text("# A card\n")
    return folder


def register(registry: Registry, name: str, files: Path, **options: str):
    with registry.run("fit", config={"seed": 7}) as run:
        return registry.register(
            name, files, run_id=run.run_id, metrics={"ndcg@20": 0.25}, tags={"data": "abc"}, **options
        )


def test_a_version_holds_its_files_metrics_tags_and_run(registry: Registry, files: Path):
    made = register(registry, "whole", files, alias=CHAMPION)
    assert (made.name, made.version, made.metrics, made.tags) == (
        "whole",
        "1",
        {"ndcg@20": 0.25},
        {"data": "abc"},
    )
    assert (Path(made.path) / "model" / "weights.bin").read_bytes() == b"\x00\x01"
    listed = json.loads((Path(made.path) / MANIFEST).read_text())["files"]
    assert sorted(listed) == ["card.md", "model/weights.bin"]
    assert registry.get("whole", CHAMPION) == registry.get("whole", "1") == made


def test_an_alias_moves(registry: Registry, files: Path):
    register(registry, "moving", files, alias=CHAMPION)
    second = register(registry, "moving", files, alias=CHAMPION)
    assert registry.get("moving", CHAMPION) == second
    registry.alias("moving", CHAMPION, "1")
    assert registry.get("moving", CHAMPION).version == "1"
    assert [one.version for one in registry.versions("moving")] == ["1", "2"]


def test_a_run_with_a_key_is_opened_again_and_says_nothing_twice(registry: Registry):
    ids = []
    for value in (0.5, 0.5):
        with registry.run("study", config={"seed": 7}, tags={"left": str(len(ids))}, key="study s") as run:
            with registry.run("part", config={}, key="part", parent=run.run_id) as part:
                part.log_metrics({"ndcg@20": value}, step=3, at=1000.5)
            ids.append((run.run_id, part.run_id))
    assert ids[0] == ids[1]
    with registry.writing() as client:
        found = client.get_run(ids[0][0])
        assert (found.info.status, found.data.params, found.data.tags["left"]) == (
            "FINISHED",
            {"seed": "7"},
            "1",
        )
        history = client.get_metric_history(ids[0][1], "ndcg_at_20")
        assert [(each.value, each.step, each.timestamp) for each in history] == [(0.5, 3, 1_000_500)]
        assert client.get_run(ids[0][1]).data.tags["mlflow.parentRunId"] == ids[0][0]


@pytest.mark.parametrize("wanted", ["9", "0", "nobody"])
def test_a_missing_version_is_named(registry: Registry, files: Path, wanted: str):
    register(registry, "present", files)
    with pytest.raises(NotFound, match=f"present.*{wanted}"):
        registry.get("present", wanted)


def test_a_missing_model_is_named(registry: Registry):
    with pytest.raises(NotFound, match="absent"):
        registry.get("absent", "1")
    with pytest.raises(NotFound, match="absent"):
        registry.alias("absent", CHAMPION, "1")
    assert registry.versions("absent") == []


def test_an_empty_folder_is_refused(registry: Registry, tmp_path: Path):
    with pytest.raises(InvalidInput, match="nothing to register"):
        registry.register("empty", tmp_path, run_id="none", metrics={})


def test_a_folder_with_a_manifest_is_refused(registry: Registry, files: Path):
    (files / MANIFEST).write_text("{}")
    with pytest.raises(InvalidInput, match=MANIFEST):
        registry.register("taken", files, run_id="none", metrics={})


@pytest.mark.parametrize("damage", ["remove", "shorten"])
def test_damaged_files_are_told(registry: Registry, files: Path, damage: str):
    made = register(registry, f"damaged-{damage}", files)
    weights = Path(made.path) / "model" / "weights.bin"
    weights.unlink() if damage == "remove" else weights.write_bytes(b"")
    with pytest.raises(StorageError, match=r"weights\.bin"):
        registry.get(made.name, "1")


def test_a_failure_before_the_row_leaves_no_version(
    registry: Registry, files: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Registry, "_require_model", fail)
    with pytest.raises(KeyboardInterrupt):
        register(registry, "interrupted", files)
    assert registry.versions("interrupted") == []
    monkeypatch.undo()
    assert register(registry, "interrupted", files).version == "1"


def test_concurrent_registrations_are_all_whole(settings: Settings, files: Path):
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: register(Registry(settings), "busy", files, alias=CHAMPION), range(6)))
    assert sorted(int(one.version) for one in made) == [1, 2, 3, 4, 5, 6]
    assert all(one.metrics == {"ndcg@20": 0.25} for one in Registry(settings).versions("busy"))


KILLED = """
import os, signal, sys
from pathlib import Path
from matinee.config import Settings
from matinee.registry.mlflow import Registry
registry = Registry(Settings(home=Path(sys.argv[1])))
create = registry._client.create_model_version
def dying(*args, **kwargs):
    if sys.argv[3] == "after":
        create(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
registry._client.create_model_version = dying
with registry.run("fit", config={}) as run:
    registry.register("killed", Path(sys.argv[2]), run_id=run.run_id, metrics={"ndcg@20": 1.0})
"""


def test_a_killed_process_leaves_all_or_nothing(settings: Settings, registry: Registry, files: Path):
    for moment, versions in (("before", []), ("after", ["1"])):
        words = [sys.executable, "-c", KILLED, str(settings.home), str(files), moment]
        assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
        found = registry.versions("killed")
        assert [one.version for one in found] == versions
        assert all((Path(one.path) / "card.md").exists() for one in found)
    assert register(registry, "killed", files).version == "2"


def status(registry: Registry, run_id: str) -> str:
    with registry.writing() as client:
        return str(client.get_run(run_id).info.status)


def test_a_run_keeps_what_it_is_given(registry: Registry, tmp_path: Path):
    (tmp_path / "curve.png").write_bytes(b"png")
    with registry.run("fit", config={"lr": 0.1, "preset": "default"}, tags={"code": "git:1"}) as run:
        run.log_metrics({"ndcg@20": 0.2}, step=1)
        run.log_figure(tmp_path / "curve.png")
    with registry.writing() as client:
        data = client.get_run(run.run_id).data
        plots = [one.path for one in client.list_artifacts(run.run_id, "plots")]
    assert data.params == {"lr": "0.1", "preset": "default"}
    assert data.metrics == {"ndcg_at_20": 0.2}
    assert data.tags["code"] == "git:1"
    assert plots == ["plots/curve.png"]
    assert status(registry, run.run_id) == "FINISHED"


@pytest.mark.parametrize(("raised", "expected"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_says_how_it_ended(registry: Registry, raised: type[BaseException], expected: str):
    with pytest.raises(raised), registry.run("fit", config={}) as run:
        raise raised
    assert status(registry, run.run_id) == expected


def test_two_homes_are_apart(registry: Registry, tmp_path: Path, files: Path):
    register(registry, "apart", files)
    assert Registry(Settings(home=tmp_path / "other")).versions("apart") == []


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "mlflow").write_text("in the way")
    with pytest.raises(StorageError, match=str(tmp_path)):
        Registry(Settings(home=tmp_path))


def test_an_unusable_database_is_named_without_its_password(tmp_path: Path):
    uri = "nosuchdatabase://member:secret@127.0.0.1/registry"
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1") as raised:
        Registry(Settings(home=tmp_path, mlflow_tracking_uri=uri))
    assert "secret" not in str(raised.value)


def test_it_says_nothing(settings: Settings, capfd: pytest.CaptureFixture[str], files: Path, tmp_path: Path):
    made = Registry(Settings(home=tmp_path / "quiet"))
    register(made, "quiet", files)
    assert capfd.readouterr() == ("", "")
    assert not logging.getLogger("mlflow").handlers

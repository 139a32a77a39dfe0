from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from matinee import cli


def test_bad_usage_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bing"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_setting_that_is_wrong_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATINEE_SERVING_PORT", "many")
    assert cli.main(["settings"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "MATINEE_SERVING_PORT" in error


def test_an_unknown_data_set_names_those_that_are_known(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["data", "get", "movielens-7", "--home", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "movielens-7" in error
    assert "movielens-100k" in error


def test_status_of_a_home_where_nothing_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["status", "--home", str(tmp_path), "--json"]) == 1
    assert '"running": false' in capsys.readouterr().out


def test_down_where_nothing_runs_is_no_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["down", "--home", str(tmp_path), "--json"]) == 0
    assert '"stopped": false' in capsys.readouterr().out


def test_scaling_needs_a_number_and_something_that_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["features", "scale", "--home", str(tmp_path)]) == 2
    assert "needs a number of workers" in capsys.readouterr().err
    assert cli.main(["features", "scale", "2", "--home", str(tmp_path)]) == 2
    assert "nothing runs on data home" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cg"], "model 'cg' is unknown; there are cf, dnn"),
        (["cf", "--budget", "5d"], "budget '5d' is not understood; accepted are 20m"),
        (["cf", "--trials", "0"], "budget '0 trials' is not understood"),
        (["cf", "--name", "../x"], "study name '../x' is not accepted"),
    ],
)
def test_what_cannot_be_tuned_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], said: str
) -> None:
    assert cli.main(["tune", *arguments, "--home", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


def test_the_shell_does_not_wait_for_model_libraries() -> None:
    heavy = "{'ray', 'torch', 'feast', 'mlflow', 'evidently', 'pandas', 'polars'}"
    code = f"import sys, matinee.cli; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"

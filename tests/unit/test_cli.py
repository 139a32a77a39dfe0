from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import served_home

from matinee import cli
from matinee.config import load_settings


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


def test_another_address_than_loopback_is_not_served_without_authentication(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MATINEE_SERVING_HOST", "0.0.0.0")
    assert cli.main(["up", "--home", str(tmp_path)]) == 2
    assert "needs authentication; set auth.jwks or auth.keys" in capsys.readouterr().err
    assert cli.main(["features", "serve", "--home", str(tmp_path)]) == 2
    assert "on loopback alone" in capsys.readouterr().err


def test_a_key_is_made_listed_and_revoked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def run(*arguments: str) -> dict[str, Any]:
        assert cli.main(["keys", *arguments, "--home", str(tmp_path), "--json"]) == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    key = run("create", "--scope", "operator", "--days", "30", "--who", "ana", "--why", "deploys")["key"]
    (listed,) = run("list")["keys"]
    assert (listed["scope"], listed["who"], listed["why"]) == ("operator", "ana", "deploys")
    assert key.startswith(f"mk_{listed['id']}_")
    assert key not in json.dumps(listed)
    run("revoke", listed["id"], "--why", "over")
    assert run("list")["keys"] == []
    assert cli.main(["keys", "revoke", "--home", str(tmp_path)]) == 2
    assert cli.main(["keys", "create", "--home", str(tmp_path)]) == 2
    assert "why of a decision is empty" in capsys.readouterr().err


def test_splits_and_their_rules_on_the_command_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    common = ["--home", str(tmp_path), "--json", "--who", "ana", "--why", "try"]
    for more in (
        ["3=9", "4=1"],
        ["--member", "m1", "v4"],
        ["--segment", "country=SE", "v4"],
        ["--shadow", "5", "0.25"],
    ):
        assert cli.main(["split", "home", *more, *common]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert shown == {
        "surface": "home",
        "weights": {"3": 0.9, "4": 0.1},
        "trial": None,
        "members": {"m1": "v4"},
        "segments": {"country=SE": "v4"},
        "shadow": {"version": "5", "share": 0.25},
    }
    assert cli.main(["split", "home", "--member", "m1", "none", *common]) == 0
    assert cli.main(["split", "home", "--shadow", "5", "0", *common]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (shown["members"], shown["shadow"]) == ({}, None)
    assert cli.main(["split", "home", "--shadow", "5", "much", *common]) == 2
    assert "'much' is no number" in capsys.readouterr().err


def test_licences_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    common = ["--home", str(tmp_path), "--json", "--who", "ana", "--why", "contract 7"]

    def run(*more: str) -> dict[str, Any]:
        assert cli.main(["licences", *more, *common]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    windows = tmp_path / "windows.csv"
    windows.write_text("title_id,country\n50,SE\n51,SE\n")
    assert run("import", str(windows))["windows"] == 2
    assert run("set", "51", "--country", "FR", "--country", "DE", "--until", "2026-07-01")["windows"] == 3
    run("withdraw", "50")
    shown = run("show")
    assert [(row["title_id"], row["country"]) for row in shown["windows"]] == [
        ("51", "FR"),
        ("51", "DE"),
        ("50", None),
    ]
    assert [change["title_id"] for change in shown["changes"]] == ["50", "51", None]
    run("clear", "50")
    assert [row["country"] for row in run("show", "50")["windows"]] == ["SE"]
    for wrong, said in (
        (["set"], "a title's id"),
        (["import", str(tmp_path / "none.csv")], "none.csv"),
        (["set", "50", "--from", "soon"], "'soon'"),
        (["set", "50", "--country", "Sweden"], "'Sweden'"),
    ):
        assert cli.main(["licences", *wrong, *common]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["start", "recommender"], "needs a model and a candidate"),
        (["start", "rec", "--candidate", "2"], "model 'rec' is not served; 'recommender' is"),
        (["start", "recommender", "--candidate", "2", "--plan", "no.toml"], "plan 'no.toml'"),
        (["show", "x"], "needs a rollout's number"),
        (["show", "3"], "rollout 3 does not exist"),
        (["stop", "3"], "rollout 3 does not exist"),
    ],
)
def test_a_rollout_that_cannot_be_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], said: str
) -> None:
    assert cli.main(["rollout", *arguments, "--home", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


def test_the_versions_and_which_of_them_is_champion(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = load_settings({"home": str(tmp_path)}, environment={})
    command = ["models", "--home", str(tmp_path), "--json"]
    assert cli.main(command) == 0
    assert json.loads(capsys.readouterr().out) == {"model": "recommender", "champion": None, "versions": []}
    served_home.register_versions(settings)
    assert cli.main(command) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["champion"] == "1"
    assert [version["version"] for version in listed["versions"]] == ["1", "2"]


def test_a_rollout_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = load_settings({"home": str(tmp_path)}, environment={})
    served_home.register_versions(settings)
    common = ["--home", str(tmp_path), "--json"]
    assert cli.main(["rollout", "start", "recommender", "--candidate", "2", "--plan", "canary", *common]) == 0
    number = json.loads(capsys.readouterr().out)["rollout"]
    for action in ("status", "list"):
        assert cli.main(["rollout", action, *common]) == 0
        (line,) = json.loads(capsys.readouterr().out)["rollouts"]
        assert (line["id"], line["baseline"], line["candidate"], line["plan"]) == (number, "1", "2", "canary")
    assert cli.main(["rollout", "stop", str(number), "--who", "bo", "--why", "enough", *common]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "stop"
    assert cli.main(["rollout", "show", str(number), *common]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(each["action"], each["who"]) for each in shown["decisions"]] == [("stop", "bo")]
    assert cli.main(["rollout", "status", *common]) == 0
    assert json.loads(capsys.readouterr().out) == {"rollouts": []}

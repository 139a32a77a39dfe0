from __future__ import annotations

from pathlib import Path

import pytest

from matinee.config import load_settings
from matinee.errors import ConfigError


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "matinee.toml"
    file.write_text("seed = 1\n[serving]\nport = 1001\nmax_k = 7\n")
    environment = {"MATINEE_CONFIG": str(file), "MATINEE_SERVING_PORT": "1002", "MATINEE_SEED": "2"}

    settings = load_settings({"seed": 3}, environment=environment)

    assert (settings.seed, settings.serving.port, settings.serving.max_k) == (3, 1002, 7)
    assert settings.kafka.partitions == 4


def test_a_flag_that_was_not_given_changes_nothing() -> None:
    assert load_settings({"seed": None}, environment={"MATINEE_SEED": "5"}).seed == 5


def test_a_section_name_with_underscores_reaches_its_field() -> None:
    settings = load_settings(environment={"MATINEE_KAFKA_BOOTSTRAP_SERVERS": "broker:9092"})
    assert settings.kafka.bootstrap_servers == "broker:9092"


def test_options_of_the_online_store_are_json_in_the_environment() -> None:
    variable = "MATINEE_FEATURES_ONLINE_OPTIONS"
    settings = load_settings(environment={variable: '{"region": "eu-west-1", "batch_size": 40}'})
    assert settings.features.online_options == {"region": "eu-west-1", "batch_size": 40}
    with pytest.raises(ConfigError, match=variable):
        load_settings(environment={variable: "region=eu-west-1"})


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"MATINEE_SERVING_PORT": "many"}, ["MATINEE_SERVING_PORT", "'many'", "integer"]),
        ({"MATINEE_KAFKA_PARTITIONS": "0"}, ["KAFKA_PARTITIONS", "'0'", "greater than or equal to 1"]),
        (
            {"MATINEE_FEATURES_ONLINE_STORE": "oracle"},
            ["oracle", "'sqlite', 'redis', 'cassandra' or 'dynamodb'"],
        ),
        ({"MATINEE_COLOUR": "red"}, ["MATINEE_COLOUR"]),
        ({"MATINEE_CONFIG": "/no/such/file.toml"}, ["/no/such/file.toml"]),
    ],
)
def test_an_error_names_the_setting_its_value_and_what_is_accepted(
    environment: dict[str, str], named: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(environment=environment)
    for part in named:
        assert part in str(raised.value)


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "matinee.toml"
    file.write_text("[serving]\nprot = 1\n")
    with pytest.raises(ConfigError, match=r"serving\.prot"):
        load_settings(environment={"MATINEE_CONFIG": str(file)})


def test_a_secret_is_neither_in_an_error_nor_in_the_dump() -> None:
    settings = load_settings(environment={"MATINEE_KAFKA_SASL_PASSWORD": "hunter2"})
    assert "hunter2" not in settings.model_dump_json()
    assert "hunter2" not in repr(settings)
    with pytest.raises(ConfigError) as raised:
        load_settings({"kafka.sasl_password": 42424242}, environment={})
    assert "42424242" not in str(raised.value)


def test_settings_are_shown_without_what_is_secret_in_them() -> None:
    settings = load_settings(
        environment={
            "MATINEE_KAFKA_SASL_PASSWORD": "hunter2",
            "MATINEE_FEATURES_REDIS": "cache:6379,password=hunter2,db=1",
            "MATINEE_DATABASE_URL": "postgresql://me:hunter2@db/matinee",
            "MATINEE_FEATURES_ONLINE_OPTIONS": '{"secret_access_key": "hunter2", "region": "eu"}',
        }
    )
    shown = settings.shown()
    assert "hunter2" not in str(shown)
    assert shown["features"]["redis"] == "cache:6379,password=**********,db=1"
    assert shown["features"]["online_options"]["region"] == "eu"
    assert shown["database_url"] == "postgresql://me:**********@db/matinee"
    assert shown["serving"]["host"] == "127.0.0.1"


def test_home_is_absolute() -> None:
    assert load_settings({"home": "there"}, environment={}).paths.catalogue.is_absolute()

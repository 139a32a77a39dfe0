import json
from dataclasses import asdict, replace

import pytest

from matinee.config import Settings
from matinee.errors import ConfigError, InvalidInput
from matinee.models import discover
from matinee.training import pipeline, tuned

SPECS = discover()
DEFAULT = SPECS["cf"].presets["default"]


def test_a_kept_config_is_the_preset_tuned(settings: Settings):
    config = replace(DEFAULT, factors=17)
    tuned.write(settings, "cf", asdict(config), {"run": "r1"})
    found = pipeline.presets(settings, SPECS, "tuned")
    assert found["cf"] == config
    assert found["dnn"] == SPECS["dnn"].presets["default"]
    assert tuned.origins(settings, SPECS) == {"cf": "r1"}
    assert pipeline.presets(settings, SPECS, "default")["cf"] == DEFAULT


def test_without_one_the_preset_is_unknown(settings: Settings):
    with pytest.raises(InvalidInput, match=r"'tuned' is unknown; there are default, .*test"):
        pipeline.presets(settings, SPECS, "tuned")


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"config": {"wings": 2}})])
def test_a_file_of_another_release_is_named(settings: Settings, text: str):
    path = tuned.write(settings, "cf", {}, {})
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"tuned config .*cf\.json is not one of cf"):
        pipeline.presets(settings, SPECS, "tuned")
    assert pipeline.presets(settings, SPECS, "default")["cf"] == DEFAULT

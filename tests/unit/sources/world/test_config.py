import pytest

from matinee.errors import ConfigError
from matinee.sources.world import Shift, WorldConfig, default, small


def test_presets_differ_in_size() -> None:
    assert small().members < default().members


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"child_share": 1.5}, "child_share is 1.5; accepted: 0 to 1"),
        ({"members": 0}, "members is 0"),
        ({"titles": 10, "page_size": 20}, "page_size is 20; accepted: 1 to 10"),
        ({"drift_days": 0.0}, "drift_days is 0"),
        ({"shifts": (Shift(day=1, strength=2),)}, r"shifts\[0\].strength is 2"),
    ],
)
def test_values_out_of_range_are_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        WorldConfig(**given)  # type: ignore[arg-type]

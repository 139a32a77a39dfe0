from benchmarks.peers import REQUIREMENTS
from benchmarks.spaces import OURS, PEERS, configured, ours, trials

from matinee.models import discover

SPACE = {"width": (1, 2, 3), "rate": (0.1, 0.2)}


def test_the_first_trial_is_the_published_one_and_none_stands_twice():
    found = trials("a", {"width": 2}, SPACE, 5)
    assert found[0] == {"width": 2}
    assert len(found) == 5
    assert all(found.count(each) == 1 for each in found)


def test_trials_are_drawn_by_the_models_name():
    assert trials("a", {}, SPACE, 4) == trials("a", {}, SPACE, 4)
    assert trials("a", {}, SPACE, 4) != trials("b", {}, SPACE, 4)


def test_a_small_space_gives_what_it_holds():
    assert len(trials("a", {}, SPACE, 50)) == 1 + 6
    assert trials("a", {}, {}, 50) == [{}]


def test_every_model_that_stands_alone_is_a_side_and_no_test_setting_is():
    found = ours()
    assert {model for model, _ in found.values()} == {n for n, spec in discover().items() if not spec.members}
    assert not any(preset == "test" for _, preset in found.values())


def test_our_spaces_name_settings_that_there_are():
    for model, space in OURS.items():
        for name, values in space.items():
            for value in values:
                assert getattr(configured(model, "default", {name: value}), name) == value


def test_peers_have_names_of_their_own_and_a_venv():
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    assert {peer.venv for peer in PEERS} <= set(REQUIREMENTS)

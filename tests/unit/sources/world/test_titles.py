import numpy as np

from matinee.sources.world.config import WorldConfig, small
from matinee.sources.world.titles import DAY, GENRES, MATURITY_STEPS, make_titles


def test_the_catalogue_says_what_the_truth_holds() -> None:
    config = WorldConfig(titles=1_000, page_size=10)
    titles = make_titles(config, 3)
    rows = titles.catalogue.table.to_pylist()
    assert len({row["title_id"] for row in rows}) == len({row["name"] for row in rows}) == 1_000
    for position, row in enumerate(rows):
        assert row["genres"][0] == GENRES[titles.genres[position].argmax()]
        assert len(row["genres"]) == (titles.genres[position] > 0).sum()
        assert row["maturity"] in MATURITY_STEPS
        assert row["cast"]
        assert row["keywords"]
    assert np.allclose(titles.genres.sum(axis=1), 1)


def test_the_share_of_cold_titles_is_released_later_and_evenly() -> None:
    config = WorldConfig(titles=1_000, page_size=10, cold_share=0.2, cold_days=30)
    released = make_titles(config, 0).released
    later = released[released > config.start]
    assert len(later) == 200
    assert later.max() <= config.start + 31 * DAY
    assert 70 < (later > config.start + 16 * DAY).sum() < 130


def test_words_tell_of_styles() -> None:
    titles = make_titles(WorldConfig(titles=2_000, page_size=10), 0)
    strong = titles.styles[:, 0] > 1.5
    words = titles.catalogue.table["keywords"].to_pylist()
    vocabulary = sorted({word for row in words for word in row})
    shares = [
        (np.mean([word in row for row, on in zip(words, strong, strict=True) if on]), word)
        for word in vocabulary
    ]
    best = max(shares)[1]
    rest = np.mean([best in row for row, on in zip(words, strong, strict=True) if not on])
    assert max(shares)[0] > 3 * rest


def test_the_seed_decides() -> None:
    one, same, other = (make_titles(small(), seed).catalogue.table for seed in (1, 1, 2))
    assert one == same
    assert one != other

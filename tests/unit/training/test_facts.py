from matinee.models.ensemble.validation import Bin, Decision, Validation
from matinee.schema import Estimate
from matinee.training.facts import validation_tables


def about(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01)


VALIDATION = Validation(
    ndcg=about(0.31),
    decisions=[
        Decision(
            segments=["short, back", "long, back"],
            cases=800,
            chosen="combination",
            combination=about(0.31),
            alone="cf.recent",
            best=about(0.29),
            lead=about(-0.02),
            reason="no signal alone is better: cf.recent alone leads by -0.0200",
        ),
        Decision(
            segments=["cold"],
            cases=94,
            chosen="popularity.trend",
            combination=about(0.30),
            alone="popularity.trend",
            best=about(0.32),
            lead=about(0.02),
            reason="popularity.trend alone leads by 0.0200",
        ),
    ],
    contributions={"popularity": about(0.05), "cf": about(0.1)},
    reliability=[
        Bin(titles=1_000, foreseen=about(0.02), came=about(0.03)),
        Bin(titles=1_001, foreseen=about(0.2), came=about(0.18)),
    ],
    error=0.015,
)


def test_the_card_tells_what_ranks_what_each_member_adds_and_what_scores_mean() -> None:
    decided, added, likely = validation_tables("ensemble", VALIDATION)
    assert "cold: popularity.trend, as popularity.trend alone leads by 0.0200." in decided.text
    assert "all with a history: combination, as no signal alone is better" in decided.text
    assert decided.rows["cold"] == {"combination": about(0.30), "best alone": about(0.32)}
    assert decided.members == {"all with a history": 800, "cold": 94}
    assert added.rows == {"popularity": {"lost": about(0.05)}, "cf": {"lost": about(0.1)}}
    assert "0.0150" in likely.text
    assert list(likely.rows) == ["1 of 2", "2 of 2"]
    assert likely.rows["2 of 2"] == {"foreseen": about(0.2), "came": about(0.18)}
    assert likely.members == {"1 of 2": 1_000, "2 of 2": 1_001}
    assert likely.counted == "titles"

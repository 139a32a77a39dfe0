from dataclasses import replace

from matinee.registry.card import CardFacts, Table, card
from matinee.schema import Estimate

FACTS = CardFacts(
    name="recommender",
    purpose="Ranks titles.",
    uses=["rows of titles"],
    misuses=["decisions about people"],
    data={"events": "10"},
    training={"seed": "0"},
    tables=[
        Table(
            title="By history",
            text="Members by how much is known.",
            rows={
                "few": {"ndcg@20": Estimate(value=0.1, low=0.05, high=0.15)},
                "many": {"recall@20": Estimate(value=0.2, low=0.1, high=0.3)},
            },
            members={"few": 1200},
        )
    ],
    limits=["knows nothing of mood"],
    lineage={"code": "git:abc"},
    metrics_text={"ndcg@20": "gain of the first 20 places"},
)


def test_it_says_each_part_in_order():
    text = card(FACTS)
    parts = ["# recommender", "## Intended use", "Not meant for", "## Data", "## Training"]
    parts += ["## How to read", "## By history", "## Limits", "## Lineage"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_figures_carry_their_interval_and_members():
    text = card(FACTS)
    assert "| | members | ndcg@20 | recall@20 |" in text
    assert "| few | 1,200 | 0.1000 [0.0500, 0.1500] | - |" in text
    assert "| many | - | - | 0.2000 [0.1000, 0.3000] |" in text


def test_a_table_says_what_it_counts():
    table = replace(FACTS.tables[0], counted="cases")
    assert "| | cases | ndcg@20 | recall@20 |" in card(replace(FACTS, tables=[table]))


def test_a_table_stays_whole_with_odd_values():
    text = card(replace(FACTS, data={"a|b": "first\nsecond"}))
    assert "| a\\|b | first second |" in text

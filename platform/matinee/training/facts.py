"""What the model card of a recommender says, from the facts of its training. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from matinee.features.titles import genre_names
from matinee.models.ensemble.validation import Validation
from matinee.registry.card import CardFacts, Table
from matinee.schema import Catalogue, Interactions
from matinee.training import evaluate
from matinee.training.evaluate import HEADLINE, WARM_EVENTS, Outcome
from matinee.training.evaluate.report import Figures, Panels
from matinee.training.judge import BASELINE, LEAST_MEMBERS, TITLES, Judged, bands, segments
from matinee.training.snapshot import Snapshot

METRICS_TEXT = {
    "recall@20": "share of a member's held-out titles that stand in their list of 20.",
    "ndcg@10, ndcg@20": "how high in the list they stand; 1 is the best possible order.",
    "mrr@20": "1 / the place of the first of them, 0 where the list has none.",
    "coverage": "share of the catalogue that stands in at least one member's list of 20.",
    "diversity": "mean over the pairs of a list of 1 - shared genres / all genres of the two titles.",
    "[low, high]": "95% bootstrap interval over members. Every title the member had not watched was ranked.",
}


def facts(
    *,
    name: str,
    combined: str,
    interactions: Interactions,
    catalogue: Catalogue,
    snapshot: Snapshot,
    panels: Panels,
    judged: Mapping[str, Judged],
    validation: Validation,
    training: Mapping[str, str],
    lineage: Mapping[str, str],
    seed: int,
) -> CardFacts:
    """The card's facts.

    Args:
        name: of the registered model.
        combined: the evaluated model that is registered.
        validation: what its hold-out says of it.
    """
    replayed = judged["prequential"]
    counts = {TITLES[protocol]: _counted(one) for protocol, one in judged.items()}
    own = replayed.outcomes[combined]
    ahead = {
        f"over {other}": {
            "ndcg@20": evaluate.difference(own, outcome, "ndcg@20", seed=seed),
            **_times(own, outcome, seed),
        }
        for other, outcome in replayed.outcomes.items()
        if other != combined
    }
    genres = genre_names(catalogue)
    parts = segments(replayed, combined, evaluate.genre_matrix(catalogue), genres, seed=seed)
    tables = [
        Table(
            title=title[0].upper() + title[1:],
            text=" ".join([_TEXTS[title], counts.get(title, "")]).strip(),
            rows={model: _shown(figures) for model, figures in models.items()},
        )
        for title, models in panels.items()
    ]
    tables[1:1] = [
        Table(
            title=f"{combined} against the others",
            text=(
                "Prequential replay, on the same events: how much higher its NDCG@20 is (a difference where "
                "the interval is above 0), and how many times the other's (above 1)."
            ),
            rows=ahead,
        ),
        _parts_table(
            f"{combined} by how much is known",
            "Prequential replay, by the watches known at the moment.",
            bands(replayed, combined, seed=seed),
        ),
        _parts_table(
            f"{combined} by kind of member and title",
            "Prequential replay. New: not in the training part; light and heavy: up to and above the median "
            "of training watches. By title: only events whose title is of that kind. Kinds with "
            f"{LEAST_MEMBERS} members or more.",
            parts,
        ),
        *validation_tables(combined, validation),
    ]
    return CardFacts(
        name=name,
        purpose=(
            "Orders a catalogue's titles for a member by how likely they are watched next, "
            "from the titles the member watched before."
        ),
        uses=[
            "rows and pages of titles on a streaming service's own surfaces",
            "members who were never seen before: they are answered by what others watch",
        ],
        misuses=[
            "decisions about people: who is offered what price, credit, work or access",
            "inferring age, health, beliefs or other traits from what someone watches",
            "catalogues other than the one it was trained on: it knows no title that is not in it",
        ],
        data={
            "events in the lake": f"{snapshot.events:,}",
            "watches learned from": f"{len(interactions):,} (a member's first of each title)",
            "members": f"{len(interactions.member_ids):,}",
            "titles": f"{len(catalogue):,}",
            "from": _date(snapshot.first),
            "to": _date(snapshot.last),
            "snapshot": snapshot.digest,
        },
        training=training,
        tables=tables,
        limits=[
            "A watch counts as liking, whatever the stars were; dislike is not learned.",
            "It was judged on recorded choices. What members would do with its own lists is not known "
            "before an experiment, and titles nobody was shown then count as misses.",
            "Popular titles are favoured; see coverage beside the baseline's "
            f"({BASELINE}) before giving it a surface meant for discovery.",
            "The fewer watches are known of a member, the nearer the list is to what everybody watches.",
            "No figure by age, gender or country: such data is not collected here, so unequal quality "
            "between such groups is not measured.",
        ],
        lineage=lineage,
        metrics_text=METRICS_TEXT,
    )


def validation_tables(combined: str, validation: Validation) -> list[Table]:
    """What ranks where and why, what each member adds, and what the scores mean."""
    decided = {
        one.segments[0] if len(one.segments) == 1 else "all with a history": one
        for one in validation.decisions
    }
    reasons = " ".join(f"{name}: {one.chosen}, as {one.reason}." for name, one in decided.items())
    foreseen = {
        f"{place + 1} of {len(validation.reliability)}": one
        for place, one in enumerate(validation.reliability)
    }
    crossed = "On the hold-out, with weights learned from other members (intervals: spread between members)"
    return [
        Table(
            title=f"{combined} against its best signal alone",
            text=f"NDCG@20. {crossed}. Where a signal alone ranks better, it ranks alone. {reasons}",
            rows={
                name: {"combination": one.combination, "best alone": one.best}
                for name, one in decided.items()
            },
            members={name: one.cases for name, one in decided.items()},
            counted="cases",
        ),
        Table(
            title=f"What each member adds to {combined}",
            text=f"NDCG@20 lost when weights are learned and decided without it. {crossed}; all of it "
            f"reaches {validation.ndcg.value:.4f}.",
            rows={name: {"lost": lost} for name, lost in validation.contributions.items()},
        ),
        Table(
            title=f"How likely, says {combined}",
            text="Titles of lists of 20 by how likely they were foreseen as the next watch: mean probability "
            "[least, most], and the share that was watched next. "
            f"{crossed}. Expected calibration error {validation.error:.4f}.",
            rows={name: {"foreseen": one.foreseen, "came": one.came} for name, one in foreseen.items()},
            members={name: one.titles for name, one in foreseen.items()},
            counted="titles",
        ),
    ]


_GLOBAL = "The first 80% of all watches in time are known;"

_TEXTS = {
    TITLES["prequential"]: (
        "Models learned from the first 80% of all watches in time. A later watch is asked about just before "
        "it happened, with everything of the member before it known: one title is right."
    ),
    TITLES["per_member"]: "Each member's first 80% of watches are known, the rest is to be foreseen.",
    f"{TITLES['global_time']}, warm members": f"{_GLOBAL} members with at least {WARM_EVENTS} of them.",
    f"{TITLES['global_time']}, cold members": f"{_GLOBAL} members with none of them.",
    f"{TITLES['global_time']}, all members": f"{_GLOBAL} everyone who watches afterwards.",
}


def _counted(judged: Judged) -> str:
    cases, members = len(judged.cases), len(set(judged.cases.members.tolist()))
    return f"{members:,} members." if cases == members else f"{cases:,} events of {members:,} members."


def _times(own: Outcome, other: Outcome, seed: int) -> Figures:
    if not other.values["ndcg@20"].any():
        return {}
    return {"times": evaluate.ratio(own, other, "ndcg@20", seed=seed)}


def _shown(figures: Figures) -> Figures:
    return {metric: figures[metric] for metric in HEADLINE if metric in figures}


def _parts_table(title: str, text: str, parts: Mapping[str, tuple[int, Figures]]) -> Table:
    return Table(
        title=title,
        text=text,
        rows={name: figures for name, (_, figures) in parts.items()},
        members={name: members for name, (members, _) in parts.items()},
    )


def _date(time: int) -> str:
    return datetime.fromtimestamp(time / 1e6, UTC).date().isoformat()

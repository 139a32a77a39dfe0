"""What the model card of a recommender says, from the facts of its training. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from matinee.registry.card import CardFacts, Table
from matinee.schema import Catalogue, Interactions
from matinee.training.evaluate import WARM_EVENTS
from matinee.training.judge import BASELINE, Judged, bands, margins, overall, warmth
from matinee.training.snapshot import Snapshot

METRICS_TEXT = {
    "recall@20": "share of a member's held-out titles that stand in their list of 20.",
    "ndcg@10, ndcg@20": "how high in the list they stand; 1 is the best possible order.",
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
    per_member: Judged,
    global_time: Judged,
    training: Mapping[str, str],
    lineage: Mapping[str, str],
    seed: int,
) -> CardFacts:
    """The card's facts.

    Args:
        name: of the registered model.
        combined: the evaluated model that is registered.
    """
    split = warmth(global_time, seed=seed)
    counts = {
        "warm": int((global_time.known >= WARM_EVENTS).sum()),
        "cold": int((global_time.known == 0).sum()),
        "all": len(global_time.known),
    }
    banded = bands(per_member, combined, seed=seed)
    ahead = margins(per_member, combined, seed=seed)
    tables = [
        Table(
            title="Per member",
            text=(
                "Each member's first 80% of watches are known, the rest is to be foreseen. "
                f"{len(per_member.known):,} members."
            ),
            rows=overall(per_member, seed=seed),
        ),
        Table(
            title=f"{combined} against the others",
            text="How much higher its NDCG@20 is on the same members; an interval above 0 is a difference.",
            rows={f"over {other}": {"ndcg@20": estimate} for other, estimate in ahead.items()},
        ),
        *(
            Table(
                title=f"Global in time, {segment} members",
                text=_SEGMENTS[segment] + f" {counts[segment]:,} members.",
                rows={model: segments[segment] for model, segments in split.items()},
            )
            for segment in split[combined]
        ),
        Table(
            title=f"{combined} by how much is known",
            text="Per member, by the watches known before the test.",
            rows={band: figures for band, (_, figures) in banded.items()},
            members={band: members for band, (members, _) in banded.items()},
        ),
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


_SEGMENTS = {
    "warm": f"The first 80% of all watches in time are known; members with at least {WARM_EVENTS} of them.",
    "cold": "The first 80% of all watches in time are known; members with none of them.",
    "all": "The first 80% of all watches in time are known; everyone who watches afterwards.",
}


def _date(time: int) -> str:
    return datetime.fromtimestamp(time / 1e6, UTC).date().isoformat()

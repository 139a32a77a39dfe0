"""Where offline rows lie: a folder of the offline store for each view, named like the view."""

from feast import FileSource


def _source(view: str, description: str) -> FileSource:
    return FileSource(
        name=view,
        path=view,
        timestamp_field="event_timestamp",
        description=description,
        owner="matinee",
    )


member_activity = _source("member_activity", "A row for every distinct time of a member's events.")
member_watched = _source("member_watched", "The latest row of each member.")
member_affinity = _source("member_affinity", "A row for every distinct time of a member's watches.")
title_popularity = _source("title_popularity", "A row for every distinct time of a title's watches.")
title_content = _source("title_content", "A row for each title of the catalogue.")

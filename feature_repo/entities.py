"""Who and what features describe."""

from feast import Entity, ValueType

member = Entity(
    name="member",
    join_keys=["member_id"],
    value_type=ValueType.STRING,
    description="A person who watches.",
    tags={"owner": "matinee"},
)

title = Entity(
    name="title",
    join_keys=["title_id"],
    value_type=ValueType.STRING,
    description="A film or series of the catalogue.",
    tags={"owner": "matinee"},
)

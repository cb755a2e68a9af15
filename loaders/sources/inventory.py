"""What a source lists, against what the warehouse holds: the differences, and what excuses them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from loaders.warehouse.id_tables import Schemas, SpilledTables

MISSING, EXTRA, STALE, ALTERED = "missing", "extra", "stale", "altered"
ERRORS = (MISSING, EXTRA, STALE, ALTERED)
"""Differences that nothing explains: not held, held and not there, older than there; a payload
that is not the one its hash was made of."""
CHANGED_SINCE, NOT_READ_YET = "changed_since", "not_read_yet"
DEAD_LETTER, ERASED = "dead_letter", "erased"
EXCUSES = (CHANGED_SINCE, NOT_READ_YET, DEAD_LETTER, ERASED)
"""Differences that the next run, or an operator, knows of."""
ANY = "*"
"""Instead of an id: every object of a type."""

_OBJECT = [("object_type", "string"), ("id", "string")]
_SCHEMAS: Schemas = {
    "listed": [*_OBJECT, ("state", "string")],
    "held": _OBJECT,
    "held_states": [*_OBJECT, ("place", "int64"), ("state", "string")],
    "altered": _OBJECT,
    "excused": [*_OBJECT, ("why", "string")],
}


@dataclasses.dataclass
class TypeOutcome:
    """How many objects of a type there are, and how many differ in which way."""

    object_type: str
    listed: int
    held: int
    differences: dict[str, int]


class Inventory(SpilledTables):
    """The objects of a connection on both sides. A context manager.

    The state of an object is a set of texts, such as its hash or its labels: states are compared
    of objects that both sides have one of. An invoice's lines and a message's attachments
    (`parent:part`) are excused with their parents, by the parent's id under their own type.
    """

    def __init__(self) -> None:
        super().__init__(_SCHEMAS)
        self.notes: list[str] = []
        """What was not compared, and why."""
        self._place = 0

    def list_ids(self, object_type: str, ids: Iterable[str]) -> None:
        """Add objects that the source has and whose state is not known; an id may come again."""
        self.add("listed", ((object_type, external_id, None) for external_id in ids))

    def list_states(self, object_type: str, states: Iterable[tuple[str, str]]) -> None:
        """Add objects that the source has, each with a part of its state; "" adds no part."""
        self.add("listed", ((object_type, external_id, state) for external_id, state in states))

    def hold(self, object_type: str, ids: Iterable[str]) -> None:
        """Add objects that the warehouse holds alive."""
        self.add("held", ((object_type, external_id) for external_id in ids))

    def hold_states(self, object_type: str, states: Iterable[tuple[str, Iterable[str]]]) -> None:
        """Add states that the warehouse holds; of one object the last one counts."""

        def rows() -> Iterable[tuple[Any, ...]]:
            for external_id, parts in states:
                self._place += 1
                for part in ("", *parts):
                    yield object_type, external_id, self._place, part

        self.add("held_states", rows())

    def excuse(self, object_type: str, ids: Iterable[str], why: str) -> None:
        """Say why objects may differ."""
        self.add("excused", ((object_type, external_id, why) for external_id in ids))

    def alter(self, objects: Iterable[tuple[str, str]]) -> None:
        """Add objects (type, id) whose payload is not the one that its hash was made of."""
        self.add("altered", objects)

    def differing(self, kind: str) -> list[tuple[str, str]]:
        """Objects (type, id) that differ in a way that nothing explains so far."""
        self.connection.execute(_COMPARE)
        return self.connection.execute(
            "select object_type, id from found where kind = ? order by all", (kind,)
        ).fetchall()

    def compare(self) -> list[TypeOutcome]:
        """Compare both sides, type by type; `ids` tells more of it afterwards."""
        self.connection.execute(_COMPARE)
        outcomes = {
            object_type: TypeOutcome(object_type, listed, held, {})
            for object_type, listed, held in self.connection.execute(_COUNT).fetchall()
        }
        for object_type, kind, count in self.connection.execute(
            "select object_type, kind, count(*) from found group by all order by all"
        ).fetchall():
            outcomes[object_type].differences[kind] = count
        return list(outcomes.values())

    def ids(self, kind: str, limit: int) -> list[tuple[str, str]]:
        """The first objects (type, id) that differ in a way."""
        return self.connection.execute(
            "select object_type, id from found where kind = ? order by all limit ?", (kind, limit)
        ).fetchall()


# States are sets: the order of their parts, and parts that come twice, do not matter.
_COMPARE = f"""
create or replace table found as
with listed_objects as (
    select
        object_type,
        id,
        count(state) > 0 as has_state,
        bit_xor(hash(state)) filter (state != '') as state
    from (select distinct object_type, id, state from listed)
    group by object_type, id
),

newest_states as (
    select object_type, id, state
    from held_states
    qualify place = max(place) over (partition by object_type, id)
),

held_objects as (
    select object_type, id, bit_xor(hash(state)) filter (state != '') as state
    from (select distinct object_type, id, state from newest_states)
    group by object_type, id
),

held_ids as (
    select distinct object_type, id from held
),

differing as (
    select object_type, id, '{MISSING}' as kind
    from listed_objects anti join held_ids using (object_type, id)
    union all
    select object_type, id, '{EXTRA}' as kind
    from held_ids anti join listed_objects using (object_type, id)
    union all
    select listed_objects.object_type, listed_objects.id, '{STALE}' as kind
    from listed_objects
    inner join held_objects using (object_type, id)
    inner join held_ids using (object_type, id)
    where has_state and listed_objects.state is distinct from held_objects.state
),

excuses as (
    -- in this order they count: changed_since first
    select object_type, id, min(why) as why from excused group by object_type, id
),

explained as (
    select differing.*, least(own.why, parents.why, everybodys.why) as why
    from differing
    left join excuses as own
        on own.object_type = differing.object_type and own.id = differing.id
    left join excuses as parents
        on parents.object_type = differing.object_type
        and parents.id = split_part(differing.id, ':', 1)
    left join excuses as everybodys
        on everybodys.object_type = differing.object_type and everybodys.id = '{ANY}'
)

select
    object_type,
    id,
    -- of what is there no more only a change is an excuse
    case when kind != '{EXTRA}' or why = '{CHANGED_SINCE}' then coalesce(why, kind) else kind end
        as kind
from explained
union all
select object_type, id, '{ALTERED}' as kind from altered
"""
_COUNT = """
select
    object_type,
    coalesce(listed_ids.count, 0),
    coalesce(held_ids.count, 0)
from (
    select object_type, count(distinct id) as count from listed group by object_type
) as listed_ids
full join (
    select object_type, count(distinct id) as count from held group by object_type
) as held_ids using (object_type)
order by object_type
"""

"""What the MERGE of a run did, as the rows of raw_objects tell it."""

from __future__ import annotations

from typing import Any

from loaders.errors import WarehouseError
from loaders.settings.constants import constants
from loaders.transform.merge_scope import MergeScope
from loaders.warehouse.base import Warehouse

_CREATED = "object_created_at"
Connection = tuple[str, str | None]
"""A source and a connection's name; without one, a job of no connection."""


def no_tests() -> dict[str, int]:
    """Counts of tests by outcome, as long as there is none."""
    return dict.fromkeys([*constants().test_outcomes.values(), "failed"], 0)


def of_no_build() -> dict[str, Any]:
    """What job.completed says of the build of a job that has none."""
    return {**dict.fromkeys(constants().merge_actions, 0), "tests": no_tests(), "merge": {}}


def merge_counts(
    warehouse: Warehouse,
    correlation_id: str,
    connection: Connection | None = None,
    scope: MergeScope | None = None,
) -> dict[str, Any]:
    """What the MERGE of a run did with rows of its connection (of all, for a job of none), by
    action, and as `rescued` what it did with those of others. Raises WarehouseError, also for a
    run of an earlier release, whose rows do not say that it inserted them. With the `scope` that
    the MERGE went by, only its months are read.

    As macros/event_log/json_with_merge_counts.sql. What was inserted is told by inserted_by, which
    nothing changes: a row counts even when another run has touched or erased it since.
    """
    objects = warehouse.table("raw_objects")
    of = "source_system, connection_name"
    within, parameters = "1 = 1", [correlation_id]
    if scope is not None and connection is not None:
        types = sorted(scope.types)
        of_types = f"object_type in ({', '.join('?' * len(types)) or 'null'})"
        within = f"source_system = ? and {of_types} and connection_name = ?"
        within += f" and {scope.predicate(_CREATED)}"
        parameters = [connection[0], *types, str(connection[1]), correlation_id]
    rows = warehouse.execute(
        "select source_system, connection_name, action, count(*) from ("
        f"select {of}, case when last_action <> 'inserted' then last_action end as action"
        f" from {objects}"
        f" where {within} and merged_by = ? and (last_action <> 'inserted' or inserted_by is null)"
        f" union all select {of}, 'inserted' from {objects} where {within} and inserted_by = ?"
        f" union all select {of}, 'inserted' from {warehouse.table('erasures')}"
        " where inserted_by = ?) as touched group by 1, 2, 3",
        [*parameters, *parameters, correlation_id],
    )
    counts: dict[str, Any] = dict.fromkeys(constants().merge_actions, 0)
    rescued: dict[str, int] = {}
    for *owner, action, count in rows:
        if action is None:
            raise WarehouseError(f"{correlation_id}: its rows do not say who inserted them")
        is_own = not (connection and connection[1]) or tuple(owner) == connection
        of_whom = counts if is_own else rescued
        of_whom[action] = of_whom.get(action, 0) + int(count)
    return counts | {"rescued": rescued}

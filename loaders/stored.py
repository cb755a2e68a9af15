"""What the warehouse holds of a connection: ids, cursors, the newest observation.

Only complete loads count: a package is there when dlt has written its row in _dlt_loads.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from loaders.warehouse import Warehouse


def held_ids(
    warehouse: Warehouse, source_system: str, connection_name: str, object_type: str
) -> set[str]:
    """Ids of the live objects that raw_objects holds, or that wait in complete loads."""
    of_type = "source_system = ? and connection_name = ? and object_type = ?"
    rows = warehouse.execute(
        f"select external_id from {warehouse.table('raw_objects')}"
        f" where {of_type} and deleted_at is null"
        " union all"
        f" select external_id from {warehouse.staging_table('landed_objects')}"
        f" where {of_type} and not is_deleted and _dlt_load_id in"
        f" (select load_id from {warehouse.staging_table('_dlt_loads')} where status = 0)",
        (source_system, connection_name, object_type) * 2,
    )
    return {external_id for (external_id,) in rows}


def dead_ids(
    warehouse: Warehouse, source_system: str, connection_name: str, object_type: str
) -> set[str]:
    """Ids that lie among the dead letters; a full resync tries them again."""
    rows = warehouse.execute(
        f"select distinct external_id from {warehouse.staging_table('dead_letters')}"
        " where source_system = ? and connection_name = ? and object_type = ?"
        " and external_id is not null and _dlt_load_id in"
        f" (select load_id from {warehouse.staging_table('_dlt_loads')} where status = 0)",
        (source_system, connection_name, object_type),
    )
    return {external_id for (external_id,) in rows}


def stored_cursor(
    warehouse: Warehouse, source_system: str, connection_name: str, stream: str
) -> dict[str, Any] | None:
    """The newest cursor of a stream among complete loads."""
    rows = warehouse.execute(
        f"select cursor from {warehouse.staging_table('cursors')} as cursors"
        f" inner join {warehouse.staging_table('_dlt_loads')} as loads"
        " on cursors._dlt_load_id = loads.load_id"
        " where loads.status = 0 and source_system = ? and connection_name = ? and stream = ?"
        " order by observed_at desc limit 1",
        (source_system, connection_name, stream),
    )
    return json.loads(rows[0][0]) if rows else None


def newest_observation(
    warehouse: Warehouse, source_system: str, connection_name: str
) -> dt.datetime | None:
    """The latest observed_at stored for a connection, merged or not."""
    of_connection = "where source_system = ? and connection_name = ?"
    rows = warehouse.execute(
        "select max(observed_at) from ("
        f"select max(last_seen) as observed_at from {warehouse.table('raw_objects')}"
        f" {of_connection}"
        f" union all select max(observed_at) from {warehouse.staging_table('landed_objects')}"
        f" {of_connection}"
        f" union all select max(observed_at) from {warehouse.staging_table('cursors')}"
        f" {of_connection}) as observations",
        (source_system, connection_name) * 3,
    )
    newest: dt.datetime | None = rows[0][0]
    return newest

"""Payloads of which 2,048 rows do not fit into DuckDB's memory: merged, changed, copied, erased.

In a third of the default memory, so that a third of the bytes will do.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from loaders.errors import TransformFailed
from loaders.idem_keys import gmail_idem_key
from loaders.settings.target import load_target
from loaders.transform import bootstrap, dbt_build
from loaders.upkeep import copying
from loaders.upkeep.copying import WarehouseCopy
from loaders.upkeep.erasing import Erasure, Selection
from loaders.upsert import upsert_objects
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from loaders.warehouse.opening import open_warehouse

from .conftest import TARGET, Project, count, prepared

pytestmark = [pytest.mark.slow, pytest.mark.extended, pytest.mark.timeout(300)]

MEMORY = "200MB"
MAILS, BYTES = 1_200, 200_000
NOISE = base64.b64encode(random.Random(1).randbytes(3_000_000)).decode()


@pytest.fixture
def warehouse(merge_by_dbt: None, project: Project, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    monkeypatch.setenv("LANDFALL_DUCKDB_MEMORY", MEMORY)
    return prepared(project, "bootstrapped", bootstrap.bootstrap)


def mails(number: int, version: str) -> Iterator[dict[str, Any]]:
    for index in range(number):
        start = index * 1_009
        yield {"id": f"m{index}", "labelIds": [version], "raw": NOISE[start : start + BYTES]}


def upsert(warehouse: Warehouse, number: int, version: str) -> dict[str, int]:
    counts = upsert_objects(
        mails(number, version),
        source_system="gmail",
        connection_name="acct1",
        object_type="message",
        idem_key_fn=gmail_idem_key("acct1"),
        warehouse=warehouse,
    ).counts
    return {name: n for name, n in counts.items() if n}


def row_groups(warehouse: Warehouse, table: str) -> int:
    found = f"select count(distinct row_group_id) from pragma_storage_info('{table}')"
    return int(warehouse.execute(found)[0][0])


def held(warehouse: Warehouse) -> dict[str, int]:
    """Stored mails by the version that they are, each compared with what was sent."""
    sent = {
        version: {mail["id"]: mail["raw"] for mail in mails(MAILS, version)}
        for version in ("one", "two")
    }
    found: dict[str, int] = {}
    for (payload,) in warehouse.stream("select payload from events.raw_objects"):
        mail = json.loads(payload)
        [version] = mail["labelIds"]
        assert sent[version].pop(mail["id"]) == mail["raw"]
        found[version] = found.get(version, 0) + 1
    return found


def test_more_than_2048_rows_may_hold_is_merged_changed_copied_and_erased(
    warehouse: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upsert(warehouse, 3, "one") == {"inserted": 3}
    assert comment(warehouse) is None
    assert upsert(warehouse, MAILS, "one") == {"inserted": MAILS - 3, "unchanged": 3}
    assert held(warehouse) == {"one": MAILS}
    assert comment(warehouse) == "large payloads"
    assert upsert(warehouse, MAILS, "one") == {"unchanged": MAILS}
    assert upsert(warehouse, MAILS, "two") == {"updated": MAILS}
    # What is small leaves the large rows where they are, and is not left in pieces itself.
    with warehouse.open():
        for _ in range(201):
            warehouse.execute(
                "insert into events_staging._dlt_loads (load_id, status, inserted_at)"
                " values ('torn', 1, now())"
            )
            warehouse.checkpoint()
    before = row_groups(warehouse, "events.raw_objects")
    assert row_groups(warehouse, "events_staging._dlt_loads") > 200
    assert upsert(warehouse, 3, "one") == {"updated": 3}
    assert row_groups(warehouse, "events.raw_objects") == before + 1
    assert row_groups(warehouse, "events_staging._dlt_loads") < 10
    assert count(warehouse, "events_staging._dlt_loads where load_id = 'torn'") == 201
    assert held(warehouse) == {"one": 3, "two": MAILS - 3}
    assert count(warehouse, "events_staging.landed_objects") == 0
    found = Stored(warehouse, "gmail", "acct1").members("message", "$.labelIds", "$.none")
    assert sum(1 for _ in found) == MAILS

    profile = yaml.safe_load(project.profiles.read_text())
    outputs = profile["landfall"]["outputs"]
    outputs["copy"] = {**outputs[TARGET], "path": str(project.directory / "copy.duckdb")}
    project.profiles.write_text(yaml.safe_dump(profile))
    monkeypatch.setattr(copying, "PACKAGE_BYTES", copying.PACKAGE_BYTES // 4)
    copied = open_warehouse(load_target("copy"), 0.0)
    WarehouseCopy(warehouse, copied).run()
    assert held(copied) == {"one": 3, "two": MAILS - 3}
    assert comment(copied) == "large payloads"

    Erasure(warehouse, Selection("gmail", "acct1", condition="external_id < 'm5'")).run()
    assert held(warehouse) == {"two": sum(f"m{n}" >= "m5" for n in range(MAILS))}


def comment(warehouse: Warehouse) -> str | None:
    """What the queue says of the store's payloads."""
    [(said,)] = warehouse.execute(
        "select comment from duckdb_tables() where table_name = 'landed_objects'"
    )
    text: str | None = said
    return text


def test_a_merge_that_ends_between_two_slices_is_gone_on_with(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first slices are stored and still queued, the others are only queued."""
    assert upsert(warehouse, MAILS, "one") == {"inserted": MAILS}
    seen = "select min(first_seen), max(first_seen) from events.raw_objects"
    [first_seen] = warehouse.execute(seen)
    failed = dbt_build.BuildResult(error=TransformFailed("before the MERGE"))
    with monkeypatch.context() as patch:
        patch.setattr(dbt_build, "build", lambda *_, **__: failed)
        with pytest.raises(TransformFailed):
            upsert(warehouse, MAILS, "two")
    spoil = "update events_staging.landed_objects set payload = {} where external_id = ?"
    warehouse.execute(spoil.format("concat('}', payload)"), (f"m{MAILS - 1}",))
    with pytest.raises(TransformFailed):
        upsert(warehouse, 0, "two")
    found = held(warehouse)
    assert 0 < found["one"] < MAILS
    assert found["one"] + found["two"] == MAILS
    warehouse.execute(spoil.format("substr(payload, 2)"), (f"m{MAILS - 1}",))
    assert upsert(warehouse, 0, "two").get("updated", 0) <= found["one"]
    assert held(warehouse) == {"two": MAILS}
    assert warehouse.execute(seen) == [first_seen]


def test_a_log_of_many_row_groups_is_written_anew_as_it_is(warehouse: Warehouse) -> None:
    """Beside large payloads checkpoints merge no row groups: the log would have one for each."""
    assert upsert(warehouse, MAILS, "one") == {"inserted": MAILS}
    with warehouse.open():
        for number in range(210):
            warehouse.execute(
                "insert into events.event_log by name"
                f" select * replace ('old-{number}' as event_id)"
                " from events.event_log where event_type = 'job.started' limit 1"
            )
            warehouse.execute("checkpoint")
    rows = "from events.event_log order by all"
    before = warehouse.execute(rows)
    groups = "select count(distinct row_group_id) from pragma_storage_info('events.event_log')"
    assert warehouse.execute(groups)[0][0] > 200
    assert upsert(warehouse, 3, "two") == {"updated": 3}
    assert warehouse.execute(groups)[0][0] < 20
    after = warehouse.execute(rows)
    assert len(after) == len(before) + 3
    assert {str(row) for row in before} <= {str(row) for row in after}

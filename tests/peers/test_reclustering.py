"""raw_objects in another order: month by month, from where it was, and right before and after."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from loaders.cli.main import main
from loaders.errors import WarehouseError
from loaders.upkeep.reclustering import Reclustering
from loaders.upsert import UpsertResult, upsert_objects
from loaders.warehouse.bigquery import BigQueryWarehouse

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("merge_only")]

OLD = ["idem_key"]
NEW = ["source_system", "object_type", "connection_name", "idem_key"]
NUMBERS = itertools.count()
WIDGETS = [{"id": f"w{month}", "created": month, "amount": 1} for month in (None, 1, 2, 3)]


def upsert(warehouse: BigQueryWarehouse, amount: int) -> UpsertResult:
    def created_at(widget: Any) -> dt.datetime | None:
        month = widget["created"]
        return None if month is None else dt.datetime(2024, month, 10, tzinfo=dt.UTC)

    return upsert_objects(
        [{**widget, "amount": amount} for widget in WIDGETS],
        source_system="acme",
        connection_name="acct1",
        object_type="widget",
        idem_key_fn=lambda widget: f"acme:acct1:widget:{widget['id']}",
        created_at_fn=created_at,
        warehouse=warehouse,
    )


def rows(warehouse: BigQueryWarehouse) -> list[tuple[Any, ...]]:
    table = warehouse.table("raw_objects")
    return warehouse.execute(
        f"select {warehouse.row_as_json('objects')} from {table} as objects order by idem_key"
    )


@pytest.fixture
def old(own_datasets: Callable[[str], BigQueryWarehouse]) -> BigQueryWarehouse:
    """A warehouse as an earlier release has left it."""
    warehouse = own_datasets(f"reclustered_{next(NUMBERS)}")
    upsert(warehouse, 1)
    warehouse.set_clustering("raw_objects", OLD, None)
    return warehouse


def test_what_is_interrupted_goes_on_where_it_was(
    old: BigQueryWarehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rows(old)
    updates: list[str] = []
    execute = BigQueryWarehouse.execute

    def die_at_the_third(self: BigQueryWarehouse, sql: str, parameters: Any = ()) -> Any:
        if sql.startswith("update"):
            updates.append(sql)
            if len(updates) == 3:
                raise WarehouseError("the network ends here")
        return execute(self, sql, parameters)

    monkeypatch.setattr(BigQueryWarehouse, "execute", die_at_the_third)
    first = Reclustering(old)
    assert (list(first.plan.before), list(first.plan.after)) == (OLD, NEW)
    assert (len(first.plan.months), first.plan.rows) == (4, 4)
    with pytest.raises(WarehouseError):
        first.run()
    assert (old.clustering("raw_objects")[0], rows(old)) == (NEW, before)

    assert main(["recluster", "--target", "emulator", "--yes"]) == 0
    assert "months left:  2, with 2 objects" in capsys.readouterr().out
    assert len(updates) == 5
    assert (old.clustering("raw_objects")[:2], rows(old)) == ((NEW, None), before)
    assert main(["recluster", "--target", "emulator"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert upsert(old, 2).counts["updated"] == 4


def test_runs_go_on_meanwhile(old: BigQueryWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    execute, during = BigQueryWarehouse.execute, []

    def upsert_before_the_second(self: BigQueryWarehouse, sql: str, parameters: Any = ()) -> Any:
        if sql.startswith("update"):
            during.append(sql)
            if len(during) == 2:
                assert upsert(old, 3).counts["updated"] == 4
        return execute(self, sql, parameters)

    monkeypatch.setattr(BigQueryWarehouse, "execute", upsert_before_the_second)
    Reclustering(old).run()
    amounts = f"select json_value(payload, '$.amount') from {old.table('raw_objects')}"
    assert old.execute(amounts) == [("3",)] * 4


def test_nothing_is_written_before_somebody_agrees(
    old: BigQueryWarehouse, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["recluster", "--target", "emulator"]) == 2
    assert "expected --yes" in capfd.readouterr().err
    assert old.clustering("raw_objects")[0] == OLD

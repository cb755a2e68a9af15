"""Retention: what the project's variables say is to be kept no longer, as a logged job."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import yaml

from loaders.errors import ConfigError
from loaders.jobs.job import Job
from loaders.settings.places import PROJECT_DIR
from loaders.transform import merge_counts
from loaders.warehouse.base import Warehouse


@dataclasses.dataclass(frozen=True)
class Rule:
    """One statement: what it does to the rows of a table that are older than so many days."""

    variable: str
    table: str
    is_landing: bool
    condition: str
    action: str
    """With {table} and {condition}."""


RULES = (
    Rule(
        "retention_days_deleted_payloads",
        "raw_objects",
        False,
        "deleted_at < ? and payload is not null",
        "update {table} set payload = null where {condition}",
    ),
    Rule(
        "retention_days_dead_letters",
        "dead_letters",
        True,
        "created_at < ?",
        "delete from {table} where {condition}",
    ),
)


def retention_days() -> dict[str, int]:
    """The rules that are set in dbt_project.yml, in days. Raises ConfigError."""
    project = yaml.safe_load((PROJECT_DIR / "dbt_project.yml").read_text())
    variables = project.get("vars") or {}
    days: dict[str, int] = {}
    for rule in RULES:
        value = variables.get(rule.variable)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(
                f"dbt_project.yml: {rule.variable}: expected a number of days from 1 on, or null"
                f" to keep them for ever, got {value!r}"
            )
        days[rule.variable] = value
    return days


class Retention:
    """One application of the rules; `counts` are the rows changed, by variable."""

    def __init__(self, warehouse: Warehouse) -> None:
        """Raises ConfigError for a variable that is wrong, or when none is set."""
        self.days = retention_days()
        if not self.days:
            names = " and ".join(rule.variable for rule in RULES)
            raise ConfigError(
                f"erase --expired: {names} are null in dbt_project.yml, which keeps everything for"
                " ever; set one of them to a number of days"
            )
        self.counts: dict[str, int] = {}
        self.job = Job(
            warehouse,
            job_name="erase_expired",
            source_system="dbt",
            parameters=self.days,
        )
        self._warehouse = warehouse

    def preview(self) -> dict[str, int]:
        """How many rows the rules would change now."""
        return {rule.variable: self._count(rule) for rule in RULES if rule.variable in self.days}

    def run(self) -> None:
        """Apply the rules, log. Raises WarehouseError."""
        self.job.start()
        try:
            self.job.step = "merge"
            with self._warehouse.open():
                for rule in RULES:
                    if rule.variable in self.days:
                        self.counts[rule.variable] = self._apply(rule)
            self.job.step = "end"
            self.job.complete({**merge_counts.of_no_build(), "expired": self.counts})
        except BaseException as error:
            self.job.fail(error)
            raise

    def _apply(self, rule: Rule) -> int:
        count = self._count(rule)
        if count:
            self._warehouse.execute(
                rule.action.format(table=self._table(rule), condition=rule.condition),
                self._edge(rule),
            )
        return count

    def _count(self, rule: Rule) -> int:
        rows = self._warehouse.execute(
            f"select count(*) from {self._table(rule)} where {rule.condition}", self._edge(rule)
        )
        return int(rows[0][0])

    def _table(self, rule: Rule) -> str:
        if rule.is_landing:
            return self._warehouse.staging_table(rule.table)
        return self._warehouse.table(rule.table)

    def _edge(self, rule: Rule) -> tuple[Any, ...]:
        return (dt.datetime.now(dt.UTC) - dt.timedelta(days=self.days[rule.variable]),)

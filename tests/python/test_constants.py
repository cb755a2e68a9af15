"""What the loaders and the project's SQL must agree on: said once, or compared here."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from dbt.adapters.bigquery.connections import _sanitize_label

from loaders.errors import ConfigError
from loaders.jobs.job import Job
from loaders.monitoring.alerts.job_end import BACKFILL, RETRY, SYNC, purpose_of
from loaders.settings import constants as module
from loaders.settings.constants import Constants, constants
from loaders.settings.places import PROJECT_DIR
from loaders.warehouse.base import Warehouse
from loaders.warehouse.dead_letters import open_letters

from .conftest import Project, on_both_targets
from .monitoring.conftest import Log, monitored
from .test_dead_letters import HOUR, NOON, complete_load, put_letter, put_object
from .test_hooks import rendered

pytestmark = pytest.mark.usefixtures("stays_open")

__all__ = ["monitored"]


def text_of(*patterns: str) -> str:
    return "\n".join(
        path.read_text() for pattern in patterns for path in sorted(PROJECT_DIR.glob(pattern))
    )


def test_both_sides_read_each_constant() -> None:
    """Whoever writes one out again reads it here no longer."""
    names = {field.name for field in dataclasses.fields(Constants)}
    of_python = text_of("loaders/**/*.py")
    of_sql = text_of("macros/**/*.sql", "models/**/*.sql", "tests/acceptance/*.sql")
    assert set(re.findall(r"\bconstants\(\)\.(\w+)", of_python)) == names
    assert set(re.findall(r"var\('constants'\)\.(\w+)", of_sql)) == names


def test_no_macro_writes_one_out_again() -> None:
    """Of each of them what hardly anything else would say."""
    of_sql = text_of("macros/**/*.sql", "models/**/*.sql", "tests/**/*.sql")
    said = re.findall(
        r"\b600\b|\{32\}|'partial success'|'slot_ms'|'success'|'stale',|objects\[0\]"
        r"|'attachment', '"
        r"|'ingestion\.failed'(?!:)",
        of_sql,
    )
    assert said == []


@pytest.mark.parametrize(
    "text", ["vars: {}", "vars: {constants: {event_types: []}}", "a: b: c", None]
)
def test_a_project_that_cannot_be_read_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.setattr(module, "_PROJECT", tmp_path / "dbt_project.yml")
    if text is not None:
        (tmp_path / "dbt_project.yml").write_text(text)
    constants.cache_clear()
    with pytest.raises(ConfigError, match=r"dbt_project\.yml: cannot be read: "):
        constants()
    constants.cache_clear()


def test_the_merge_decides_on_each_action(project: Project) -> None:
    decided = rendered(project, "merge_action('at', 'gone', 'hash', 'stored')")
    actions = set(re.findall(r"(?:then|else) '(\w+)'", decided))
    assert {"inserted", *actions} == set(constants().merge_actions)


def test_what_the_columns_are_documented_to_hold_is_what_they_hold() -> None:
    documented = text_of("models/core/_*.yml")
    [actions] = re.findall(r"What that MERGE did with the row - ([\w, ]+)\.", documented)
    [types] = re.findall(r"description: (job\.started, .+)\.", documented)
    assert re.split(", | or ", actions) == constants().merge_actions
    assert re.split(", | or ", types) == constants().event_types


@pytest.mark.parametrize(
    "job_name", ["gmail_ingest_me", "Stripe.build-it", f"gmail_ingest_{'x' * 80}_é"]
)
def test_a_run_has_the_same_labels_on_every_statement(
    warehouse: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch, job_name: str
) -> None:
    """dbt writes those of its own statements; an orphan's MERGE is found by them and ended."""
    job = Job(warehouse, job_name=job_name, source_system="gmail")
    monkeypatch.setenv("LANDFALL_CORRELATION_ID", job.correlation_id)
    comment = json.loads(rendered(project, "query_comment(none)"))
    labels = {name: _sanitize_label(value) for name, value in comment.items()}
    assert labels == {"application": "landfall", **warehouse.labels}


RETRIES: list[dict[str, Any]] = [{}, {"retry": False}, {"retry": True}]
PARTS: list[dict[str, Any]] = [
    {},
    {"since": None, "until": None, "objects": []},
    {"since": "2026-01-01T00:00:00+00:00"},
    {"until": "2026-01-01T00:00:00+00:00"},
    {"objects": ["charge", "invoice"]},
    {"max_objects": 5},
]


@on_both_targets
def test_what_a_run_is_for_is_the_same_in_the_views_and_in_the_alerts(
    monitored: Warehouse,
) -> None:
    log = Log()
    for retry, parts in itertools.product(RETRIES, PARTS):
        log.run("me", 10, "completed", started={"parameters": {**retry, **parts}})
    log.write(monitored)
    told = dict(
        monitored.execute(
            f"select correlation_id, {purpose_of(monitored)} from {monitored.table('event_log')}"
            " where event_type = 'job.started'"
        )
    )
    shown = {
        run: RETRY if is_retry else SYNC if is_sync else BACKFILL
        for run, is_retry, is_sync in monitored.execute(
            f"select correlation_id, is_retry, is_sync from {monitored.table('job_runs')}"
        )
    }
    assert told == shown
    assert len(shown) == len(RETRIES) * len(PARTS)
    assert set(shown.values()) == {SYNC, RETRY, BACKFILL}


@on_both_targets
def test_a_dead_letter_is_open_in_the_views_when_it_is_for_the_loaders(
    warehouse: Warehouse, project: Project
) -> None:
    complete_load(warehouse)
    letters, objects = warehouse.staging_table("dead_letters"), warehouse.table("raw_objects")
    for hours in (-1, 0, 1):
        for name in ("alive", "deleted", "dropped", "half"):
            put_object(warehouse, f"{name} {hours}", NOON + hours * HOUR)
            put_letter(warehouse, f"{name} {hours}", NOON)
        put_letter(warehouse, f"again {hours}", NOON)
        put_letter(warehouse, f"again {hours}", NOON + hours * HOUR)
        put_letter(warehouse, None, NOON + hours * HOUR)
    put_letter(warehouse, None, NOON)
    put_letter(warehouse, "alone", NOON)
    put_letter(warehouse, "dropped alone", NOON)
    put_letter(warehouse, "half alone", NOON)
    put_letter(warehouse, "others", NOON)
    for change in (
        f"update {objects} set deleted_at = last_seen where external_id like 'deleted%'",
        f"update {letters} set dropped_at = created_at where external_id like 'dropped%'",
        f"update {letters} set _dlt_load_id = 'other' where external_id like 'half%'",
        f"update {letters} set connection_name = 'acct2' where external_id = 'others'",
    ):
        warehouse.execute(change)
    compiled = project.run_dbt("compile", "--inline", "{{ open_dead_letters() }}")
    [query] = [each.node.compiled_code for each in compiled.result.results]
    found = [row[0] for row in warehouse.execute(f"select dead_letter_id from ({query}) as found")]
    assert sorted(found) == sorted(letter.dead_letter_id for letter in open_letters(warehouse))
    assert len(found) > 10

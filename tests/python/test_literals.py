"""Text that gets into SQL: by the macro that writes literals, and nowhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from loaders.jobs.event_log import log_event
from loaders.objects.items import Deleted, Observed, Unfetched
from loaders.warehouse.base import Warehouse
from loaders.warehouse.duckdb_file import DuckDBWarehouse
from tests.peers.gate import Gate

from .cli.conftest import run_main
from .conftest import (
    EMULATOR,
    HOSTILE_TEXTS,
    Project,
    at,
    cursor_item,
    event_types,
    events,
    on_both_targets,
    run_scripted,
    stored,
)
from .test_poison import characters, drawn

pytestmark = pytest.mark.slow

LITERALS = """
{%- for value in fromjson(env_var('LANDFALL_TEST_TEXTS')) %}
{{ text_literal(value) }} -- literal
{%- endfor %}
"""
PARTS = ["'", '"', "\\", "\\u0027", "\\x27", "''", "r'", "{{", "}}", "{%", "--", "/*", ";", "\n"]
texts = st.lists(characters | st.sampled_from([*PARTS, *HOSTILE_TEXTS.values()]), max_size=12).map(
    "".join
)


@on_both_targets
def test_a_literal_is_the_text_it_was_made_of(
    warehouse: Warehouse,
    project: Project,
    target_type: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """On DuckDB by running it, for BigQuery in GoogleSQL's own evaluator."""
    written = list(dict.fromkeys([*HOSTILE_TEXTS.values(), *drawn(texts, 200)]))
    monkeypatch.setenv("LANDFALL_TEST_TEXTS", json.dumps(written))
    result = project.run_dbt("compile", "--inline", LITERALS)
    [compiled] = [each.node.compiled_code for each in result.result.results]
    literals = [line.removesuffix(" -- literal") for line in compiled.splitlines() if line.strip()]
    assert len(literals) == len(written)
    assert all(literal.isascii() for literal in literals)
    if target_type == EMULATOR:
        gate: Gate = request.getfixturevalue("gate")
        read = [gate.analyzer.evaluate(literal) for literal in literals]
    else:
        [row] = warehouse.execute(f"select {', '.join(literals)}")
        read = list(row)
    assert read == written


class Statements:
    """Every statement that the loaders send, without its parameters."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[str] = []
        for name in ("execute", "stream"):
            monkeypatch.setattr(DuckDBWarehouse, name, self._noted(getattr(DuckDBWarehouse, name)))

    def _noted(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def noted(warehouse: Warehouse, sql: str, parameters: Any = ()) -> Any:
            self.sent.append(sql)
            return send(warehouse, sql, parameters)

        return noted


MARK = "mArK') -- {{ 1 / 0 }}"


def test_no_value_gets_into_a_statement_of_the_loaders(
    warehouse: Warehouse,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    merge_only: None,
) -> None:
    statements = Statements(monkeypatch)
    run = run_scripted(
        warehouse,
        [
            Observed("widget", json.dumps({"id": f"a{MARK}", "text": MARK}), at(1), f"a{MARK}"),
            Observed("widget", f'{{"id": "{MARK}', at(2), f"b{MARK}"),
            Unfetched("widget", f"c{MARK}", f"refused {MARK}", 3),
            Deleted("widget", f"d{MARK}", at(3)),
            cursor_item(4, mark=MARK),
        ],
    )
    assert run.error is not None
    assert stored(warehouse).keys() == {f"a{MARK}", f"d{MARK}"}
    for command in (["dead-letters"], ["status"], ["retry"], ["check", "gmail"]):
        run_main(capsys, *command)
    assert len(statements.sent) > 20
    assert [sql for sql in statements.sent if "mArK" in sql] == []


@pytest.mark.parametrize(
    "command",
    [
        ["gmail", "--connection", f"a{MARK}"],
        ["build", "--select", f"tag:{MARK}", "--vars", "{mark: 1}"],
    ],
    ids=["connection", "dbt arguments"],
)
def test_what_a_person_types_is_stored_literally(
    warehouse: Warehouse,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    statements = Statements(monkeypatch)
    # A connection that was run before: another one is wrong usage, and no run.
    log_event(
        warehouse,
        "job.started",
        source_system="gmail",
        connection_name=f"a{MARK}",
        correlation_id="r",
    )
    run_main(capsys, *command)
    logged = events(warehouse)
    assert event_types(warehouse)[0] == "job.started"
    assert MARK in json.dumps([event["payload"] for event in logged], ensure_ascii=False)
    assert [sql for sql in statements.sent if "mArK" in sql] == []


def test_a_plain_dbt_command_s_arguments_are_stored_literally(
    warehouse: Warehouse, project: Project
) -> None:
    # What dbt itself takes for a selector: on one line, without its own separators.
    texts = [text for text in (MARK, *HOSTILE_TEXTS.values()) if "\n" not in text]
    tags = [re.sub(r"[ /,+@*?\[\]]", "_", f"tag:{text}") for text in texts]
    selected = ["stg_landed_objects", *tags]
    assert project.run_dbt("run", "--select", *selected).success
    assert events(warehouse)[0]["payload"]["parameters"]["select"] == selected

"""The key is nowhere."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.settings.places import PROJECT_DIR
from loaders.warehouse.base import Warehouse
from tests.python.cli.conftest import run_main
from tests.python.conftest import Project, events

from .conftest import KEY, fault

pytestmark = [
    pytest.mark.usefixtures("core_build", "stays_open", "own_secrets"),
    pytest.mark.timeout(300),
]


ECHO = base64.b64encode(f"{KEY}:".encode()).decode()


ERROR = {"error": {"code": "some_code", "message": f"key {KEY}, Authorization: Basic {ECHO}"}}


PAGE = {"object": "list", "data": [], "has_more": True, "url": KEY}


FAULTS: dict[str, dict[str, Any]] = {
    "400": {"status": 400, "json": ERROR},
    "401": {"status": 401, "json": ERROR},
    "402": {"status": 402, "json": ERROR},
    "403": {"status": 403, "json": ERROR},
    "404": {"status": 404, "json": ERROR},
    "409": {"status": 409, "json": ERROR},
    "429": {"status": 429, "json": ERROR},
    "500": {"status": 500, "json": ERROR},
    "dropped": {"drop": True},
    "cut off": {"truncate": True},
    "HTML": {"body": f"<html>Authorization: Basic {ECHO} {KEY}</html>"},
    "text": {"body": f"Authorization: Basic {ECHO} {KEY}", "status": 502},
    "redirect": {"body": f"{KEY} {ECHO}", "status": 302},
    "no end": {"json": PAGE},
}


def leaks(texts: dict[str, str], *needles: str) -> list[str]:
    return [name for name, text in texts.items() if any(needle in text for needle in needles)]


def files_below(*directories: Path) -> dict[str, str]:
    """What every file holds, and its name."""
    found = {}
    for directory in directories:
        for path in directory.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file():
                    found[str(path)] = f"{path}\n{path.read_bytes().decode(errors='replace')}"
    return found


def text_columns(warehouse: Warehouse) -> dict[str, str]:
    """Every row of every table as one text each."""
    tables = warehouse.execute(
        "select table_schema, table_name from information_schema.tables"
        " where table_type = 'BASE TABLE'"
    )
    return {
        f"{schema}.{table}": json.dumps(
            warehouse.execute(f'select * from "{schema}"."{table}"'), default=str
        )
        for schema, table in tables
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", ["*", "products.list", "events.list"])
def test_the_key_is_nowhere_whatever_goes_wrong(
    project: Project,
    warehouse: Warehouse,
    connected: Sandbox,
    capsys: pytest.CaptureFixture[str],
    method: str,
) -> None:
    """Faults that echo it: of all requests, of one kind's, of the feed."""
    target = PROJECT_DIR / "target" / project.target
    assert run_main(capsys, "stripe", "--objects", "product")[0] == 0
    said = {}
    for name, action in FAULTS.items():
        fault(connected, method, **action)
        arguments = ["stripe", "--objects", "product,price", "--debug", "--log-format", "json"]
        arguments += ["--full-resync"] if method == "products.list" else []
        code, out, err = run_main(capsys, *arguments)
        assert code == 1 or (name == "404" and method == "events.list"), (name, code, err)
        said[name] = out + err
        assert "Traceback" in err, name  # as --debug promises
    needles = (KEY, KEY[8:], ECHO, ECHO[12:40], "canary5e1d")
    assert leaks(said, *needles) == []
    assert leaks(text_columns(warehouse), *needles) == []
    state = files_below(project.state_dir, project.dlt_dir, target)
    assert leaks(state, *needles) == []
    # DuckDB's own file, too: rows that were deleted are in it.
    assert leaks(files_below(project.duckdb_path.parent), *needles) == []


@pytest.mark.parametrize("options", [[], ["--debug"], ["--debug", "--log-format", "json"]])
def test_a_key_for_the_name_of_an_error_is_not_shown(
    warehouse: Warehouse,
    connected: Sandbox,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:
    error = {"error": {"code": KEY, "type": KEY, "param": KEY, "message": KEY}}
    fault(connected, "account.get", status=400, json=error)
    code, out, err = run_main(capsys, "stripe", *options)
    assert code == 1
    assert KEY not in out + err
    assert KEY not in json.dumps(events(warehouse), default=str)


@pytest.mark.slow
def test_the_key_is_nowhere_in_a_process_of_its_own(
    project: Project, warehouse: Warehouse, connected: Sandbox
) -> None:
    """Log handlers, warnings at exit and tracebacks of threads are a process's own."""
    for command in (["stripe", "--objects", "product"], ["check", "stripe"], ["status"]):
        for action in ({"status": 500, "json": ERROR}, {"drop": True}, FAULTS["HTML"]):
            fault(connected, "products.list", **action)
            done = project.run_cli(*command, "--debug", "--log-format", "json")
            assert leaks({"out": done.stdout, "err": done.stderr}, KEY, ECHO) == []

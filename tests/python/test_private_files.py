"""What is stored is its user's alone: what is made is, and what is found is warned of."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loaders import upsert
from loaders.jobs.event_log import log_event, spool_dir
from loaders.settings.private_files import made_private
from loaders.warehouse.base import Warehouse

from .cli.conftest import run_main
from .conftest import Project


@pytest.fixture(autouse=True)
def usual_umask(bootstrapped_file: Path) -> Iterator[None]:
    """For what a test makes; what tests start from was made before."""
    before = os.umask(0o022)
    yield
    assert os.umask(before) == 0o022


def open_to_others(directory: Path) -> list[str]:
    """What others may read of what is below a directory."""
    return [str(path) for path in directory.rglob("*") if path.stat().st_mode & 0o077]


def test_what_commands_make_is_their_user_s_alone(
    project: Project, capsys: pytest.CaptureFixture[str], merge_by_dbt: None
) -> None:
    """The warehouse, and what waits, lies or is logged beside it."""
    before = open_to_others(project.directory)
    assert run_main(capsys, "gmail", "--sandbox-size", "4")[0] == 0
    assert project.duckdb_path.exists()
    assert any((project.state_dir / "pipelines").rglob("*"))
    assert any((project.state_dir / "logs").rglob("*"))
    assert open_to_others(project.directory) == before


def test_a_page_that_is_served_stays_readable(
    warehouse: Warehouse, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    page = project.directory / "page.html"
    for mode in (0o600, 0o644):  # as it is made, and as somebody wants it
        assert run_main(capsys, "dashboard", "--output", str(page))[0] == 0
        assert page.stat().st_mode & 0o777 == mode
        page.chmod(0o644)


def test_what_other_jobs_make_is_their_user_s_alone(
    warehouse: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def objects() -> Iterator[dict[str, Any]]:
        for number in range(4):
            yield {"id": number}
            seen.extend(open_to_others(project.state_dir))
            seen.extend(open_to_others(project.duckdb_path.parent))

    upsert.upsert_objects(
        objects(),
        source_system="acme",
        connection_name="acct1",
        object_type="widget",
        idem_key_fn=lambda payload: f"acme:acct1:widget:{payload['id']}",
        batch_size=2,
        merge=False,
        warehouse=warehouse,
    )
    monkeypatch.setattr(warehouse, "insert_event", lambda _event: 1 / 0)
    log_event(warehouse, "job.started", source_system="acme", correlation_id="r")
    assert list(spool_dir(warehouse).glob("*.json"))
    assert seen + open_to_others(project.state_dir) == []


def test_the_umask_is_given_back_by_the_last_that_has_it() -> None:
    """upsert_objects may run in several threads of somebody's process."""
    has_begun, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with made_private():
            has_begun.set()
            may_end.wait(10)

    other = threading.Thread(target=hold)
    with made_private():
        other.start()
        has_begun.wait(10)
    assert os.umask(0o022) == 0o077
    os.umask(0o077)
    may_end.set()
    other.join()


@pytest.mark.parametrize("command", ["gmail", "check"])
def test_what_others_can_read_of_what_is_stored_is_one_line_with_the_fix(
    warehouse: Warehouse,
    project: Project,
    capsys: pytest.CaptureFixture[str],
    no_build: None,
    command: str,
) -> None:
    project.duckdb_path.chmod(0o640)
    project.state_dir.mkdir(mode=0o755)
    arguments = (command, *(["gmail"] if command == "check" else []), "--sandbox-size", "4")
    lines = run_main(capsys, *arguments)[2].splitlines()
    [line] = [line for line in lines if line.startswith("warning: ")]
    assert line.endswith(f"stored: chmod go= {project.duckdb_path} {project.state_dir}")
    project.duckdb_path.chmod(0o600)
    project.state_dir.chmod(0o700)
    assert "warning: " not in run_main(capsys, *arguments)[2]

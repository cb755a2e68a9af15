"""Others that bring a Stripe account's charges into DuckDB: how each is installed and run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.harness import Figures, Workspace
from tests.peers.install import PEERS, alone, find_python, new_environment, run_uv

KEY = "sk_test_bench"
TAP_PACKAGES = ("tap-stripe==3.3.0",)
# With DuckDB 1.5.5 and 2.0.1 this target loses the first row of each batch: its COPY takes it
# for a header. With 1.1.3 it stops at disputes.
TARGET_PACKAGES = ("target-duckdb==0.8.0", "duckdb==1.0.0")
_NEWEST_PYTHON_OF_DUCKDB_1_0 = (3, 12)
_LAUNCHER = Path(__file__).with_name("stripe_tap.py")
# Before anything in the sandbox; in one window, as the last page of each is hardly ever full.
_TAP_START, _TAP_WINDOW_DAYS = "2020-01-01T00:00:00Z", 4000
_TABLE = "charges"
QUERY = f"select id, amount from stripe.{_TABLE}"
"""What a rival has stored."""


def dlt_charges(workspace: Workspace, base_url: str, account_id: str) -> Figures:
    """dlt's declarative REST source, merging by id, in this project's own environment."""
    return _run_dlt(workspace, base_url, "insert_values")


def dlt_charges_as_parquet(workspace: Workspace, base_url: str, account_id: str) -> Figures:
    """The same with the format that DuckDB loads faster, which one has to ask for."""
    return _run_dlt(workspace, base_url, "parquet")


def _run_dlt(workspace: Workspace, base_url: str, file_format: str) -> Figures:
    command = ("-m", "tests.bench.stripe_rivals", base_url, str(workspace.database), file_format)
    return workspace.run(command, RUNTIME__DLTHUB_TELEMETRY="false")


def tap_charges(workspace: Workspace, base_url: str, account_id: str) -> Figures:
    """tap-stripe into target-duckdb, each in an environment of its own.

    Raises PeerUnavailable.
    """
    tap, target = install_tap(), install_target()
    folder = workspace.directory
    tap_config = {
        "client_secret": KEY,
        "account_id": account_id,
        "start_date": _TAP_START,
        "date_window_size": _TAP_WINDOW_DAYS,
    }
    target_config = {"path": str(workspace.database), "default_target_schema": "stripe"}
    (folder / "tap.json").write_text(json.dumps(tap_config))
    (folder / "target.json").write_text(json.dumps(target_config))
    # -P: or the modules beside the launcher would stand before those of the environment.
    run_tap = [str(tap), "-P", str(_LAUNCHER), base_url, "--config", str(folder / "tap.json")]
    discover = [*run_tap, "--discover"]
    found = subprocess.run(discover, text=True, capture_output=True, check=False)
    if found.returncode:
        raise RuntimeError(f"tap-stripe --discover failed\n{found.stderr}")
    catalog = json.loads(found.stdout)
    for stream in catalog["streams"]:
        if stream["tap_stream_id"] == _TABLE:
            for entry in stream["metadata"]:
                entry["metadata"]["selected"] = True
    (folder / "catalog.json").write_text(json.dumps(catalog))
    run_tap += ["--catalog", str(folder / "catalog.json")]
    run_target = [str(target.with_name("target-duckdb")), "--config", str(folder / "target.json")]
    return workspace.pipe([run_tap, run_target])


@alone()
def install_tap() -> Path:
    """Interpreter of tap-stripe's environment. Raises PeerUnavailable."""
    return _install("tap-stripe", Path(sys.executable), TAP_PACKAGES)


@alone()
def install_target() -> Path:
    """Interpreter of target-duckdb's environment. Raises PeerUnavailable."""
    python = Path(sys.executable)
    if sys.version_info[:2] > _NEWEST_PYTHON_OF_DUCKDB_1_0:
        newest = ".".join(map(str, _NEWEST_PYTHON_OF_DUCKDB_1_0))
        python = find_python(newest, "DuckDB 1.0.0, the newest that target-duckdb works with,")
    return _install("target-duckdb", python, TARGET_PACKAGES)


def _install(name: str, base: Path, packages: tuple[str, ...]) -> Path:
    environment = PEERS / name
    python = environment / "bin" / "python"
    if not (environment / ".complete").exists():
        new_environment(environment, base)
        run_uv("pip", "install", "--compile-bytecode", "--python", python, *packages)
        (environment / ".complete").touch()
    return python


def _read_with_dlt(base_url: str, database: str, file_format: str) -> None:
    import dlt
    from dlt.sources.rest_api import rest_api_source
    from dlt.sources.rest_api.typing import RESTAPIConfig

    config: RESTAPIConfig = {
        "client": {
            "base_url": f"{base_url}/v1/",
            "auth": {"type": "bearer", "token": KEY},
            "paginator": {
                "type": "cursor",
                "cursor_path": "data[-1].id",
                "cursor_param": "starting_after",
                "has_more_path": "has_more",
            },
        },
        "resource_defaults": {
            "primary_key": "id",
            "write_disposition": "merge",
            # As columns of JSON: tables of their own would be slower still.
            "max_table_nesting": 0,
            "endpoint": {"params": {"limit": 100}, "data_selector": "data"},
        },
        "resources": [_TABLE],
    }
    pipeline: Any = dlt.pipeline(
        "rival",
        destination=dlt.destinations.duckdb(database),
        dataset_name="stripe",
        pipelines_dir=str(Path(database).parent / "pipelines"),
    )
    pipeline.run(rest_api_source(config), loader_file_format=file_format)


if __name__ == "__main__":
    _read_with_dlt(*sys.argv[1:])

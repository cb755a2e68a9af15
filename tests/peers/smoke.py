"""Runs the job twice against a real BigQuery project, in datasets that it makes and removes.

    LANDFALL_BIGQUERY_PROJECT=my-project python -m tests.peers.smoke

Prints what the runs said and what BigQuery billed for them. The mail is the sandbox's.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loaders.settings.places import PROJECT_DIR


def main() -> int:
    """Run the job twice and the acceptance tests; remove the datasets whatever happens."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--target", default="prod", help="dbt target (default prod)")
    target = parser.parse_args().target
    if target == "prod" and not os.environ.get("LANDFALL_BIGQUERY_PROJECT"):
        parser.error("set LANDFALL_BIGQUERY_PROJECT to the project that may be billed")
    began = dt.datetime.now(dt.UTC)
    with tempfile.TemporaryDirectory(prefix="landfall-smoke-") as directory:
        dataset = f"landfall_smoke_{secrets.token_hex(4)}"
        environment = _prepare(Path(directory), dataset)
        warehouse = _warehouse(environment, target)
        try:
            for command in _commands(target):
                print(f"\n$ {' '.join(command)}", flush=True)
                subprocess.run(
                    [sys.executable, *command], cwd=PROJECT_DIR, env=environment, check=True
                )
            _print_bill(warehouse, began)
        finally:
            for name in (warehouse.target.staging_schema, dataset):
                client = warehouse.client()
                client.delete_dataset(name, delete_contents=True, not_found_ok=True)
                print(f"removed dataset {name}")
    return 0


def _prepare(directory: Path, dataset: str) -> dict[str, str]:
    example = PROJECT_DIR / "profiles.example.yml"
    (directory / "profiles.yml").write_text(example.read_text())
    return {
        **os.environ,
        "DBT_PROFILES_DIR": str(directory),
        "LANDFALL_STATE_DIR": str(directory / "state"),
        "LANDFALL_BIGQUERY_DATASET": dataset,
    }


def _warehouse(environment: dict[str, str], target: str) -> Any:
    from loaders.settings.target import load_target
    from loaders.warehouse.opening import open_warehouse

    os.environ.update(environment)
    return open_warehouse(load_target(target))


def _commands(target: str) -> Sequence[Sequence[str]]:
    run = ("loaders/run.py", "gmail", "--connection", "sandbox", "--target", target)
    tests = ("-m", "dbt.cli.main", "test", "--exclude-resource-type", "unit_test")
    return (run, (*run, "--full-resync"), (*tests, "--target", target))


def _print_bill(warehouse: Any, began: dt.datetime) -> None:
    jobs = [
        job
        for job in warehouse.client().list_jobs(min_creation_time=began)
        if job.labels.get("application") == "landfall"
    ]
    billed = sum(getattr(job, "total_bytes_billed", None) or 0 for job in jobs)
    print(f"\n{len(jobs)} jobs, {billed / 2**20:.1f} MiB billed")


if __name__ == "__main__":
    sys.exit(main())

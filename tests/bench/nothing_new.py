"""A run that finds nothing new, checks included, against importing what it needs."""

from __future__ import annotations

import sys
from typing import Any

from tests.bench.harness import (
    Clock,
    Figures,
    Workspace,
    median,
    new_workspace,
    print_steps,
    print_table,
)

GOAL = "goal at most 3 s above the imports"
COMMAND = ("loaders/run.py", "gmail", "--connection", "acct1")
IMPORTS = ("-c", "import dlt, dbt.cli.main, googleapiclient.discovery")
VARIANTS: dict[str, dict[str, str]] = {
    "as it is": {},
    "without dbt's artifacts": {"DBT_WRITE_JSON": "false"},
    "without dbt's debug log": {"DBT_LOG_LEVEL_FILE": "none"},
    "without both": {"DBT_WRITE_JSON": "false", "DBT_LOG_LEVEL_FILE": "none"},
}


def run(quick: bool) -> Figures:
    """Whole processes in turn, so that a busy machine slows each of them alike."""
    from landfall_sandbox.controls import Sandbox

    repeats = 3 if quick else 7
    with Sandbox(size=250) as sandbox, new_workspace() as workspace:
        variables = {
            "SOURCES__GMAIL__ACCT1__ACCESS_TOKEN": "sandbox",
            "SOURCES__GMAIL__ACCT1__UNITS_PER_MINUTE": "10000000",
            "SOURCES__GMAIL__ACCT1__API_BASE_URL": sandbox.base_url,
        }
        for _ in range(2):  # the first fetches, the second finds nothing; both warm caches
            workspace.run(COMMAND, **variables)
        seconds = _measure(workspace, repeats, variables)
        with_output = workspace.run(COMMAND, **variables)["output"]
        steps = workspace.call("nothing_new:steps", environment=variables)
    if "0 (0.0 MB" not in with_output:
        raise RuntimeError(f"nothing new: something was\n{with_output}")
    imports = seconds.pop("imports only")
    rows: list[tuple[str, float, float | None]] = [("imports only", imports, None)]
    rows += [(name, taken, taken - imports) for name, taken in seconds.items()]
    print_steps(
        "Where the seconds go: nothing new, in a process of its own",
        steps["steps"],
        steps["seconds"],
    )
    print_table(f"A run with nothing new ({GOAL})", ("process", "seconds", "above imports"), rows)
    return {"imports": imports, **seconds, "steps": steps}


def _measure(workspace: Workspace, repeats: int, variables: dict[str, str]) -> dict[str, float]:
    taken: dict[str, list[float]] = {"imports only": [], **{name: [] for name in VARIANTS}}
    for _ in range(repeats):
        taken["imports only"].append(workspace.run(IMPORTS)["seconds"])
        for name, more in VARIANTS.items():
            taken[name].append(workspace.run(COMMAND, **variables, **more)["seconds"])
    return {name: median(values) for name, values in taken.items()}


def steps(environment: dict[str, str]) -> dict[str, Any]:
    """Seconds by step of one run in this process; nested steps are taken out of outer ones."""
    import os
    import time

    os.environ.update(environment)
    clock = Clock()
    began = time.perf_counter()
    with clock.step("imports"):
        import dbt.cli.main
        import dbt.cli.requires
        import dbt.parser.manifest
        import dbt.task.build
        import dbt.task.runnable
        import dlt  # noqa: F401
        import googleapiclient.discovery  # noqa: F401

        from loaders.cli import main
        from loaders.ingestion import ingest
        from loaders.transform import bootstrap as bootstrap_module
        from loaders.transform import dbt_build
    clock.watch(ingest.Ingestion, "_extract", "list and read the warehouse")
    clock.watch(bootstrap_module, "bootstrap", "look whether tables are missing")
    clock.watch(dbt_build, "invoke", "dbt")
    clock.watch(dbt.cli.requires, "setup_manifest", "dbt: read what it parsed before")
    clock.watch(dbt.task.runnable.GraphRunnableTask, "execute_nodes", "dbt: models and tests")
    code = main.main([*COMMAND[1:]])
    if code:
        sys.exit(code)
    seconds = time.perf_counter() - began
    taken = clock.seconds
    taken["dbt: everything else"] = taken.pop("dbt") - sum(
        taken[name] for name in ("dbt: read what it parsed before", "dbt: models and tests")
    )
    return {"seconds": seconds, "steps": taken}

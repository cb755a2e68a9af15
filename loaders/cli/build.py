"""`run.py build`: dbt build as a logged job."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from loaders.cli.arguments import add_command, warehouse_of
from loaders.errors import register_secret
from loaders.settings.places import configure_dlt


def add(commands: Any) -> None:
    """Add the command."""
    build = add_command(
        commands,
        "build",
        run,
        "dbt build as a logged job",
        "Everything after the options goes to dbt build, such as --select. Unlike a plain"
        " dbt build, a project that does not compile is logged as job.failed too, and dbt's"
        " artifacts are written only with --write-json.",
    )
    build.usage = "run.py build [options] [DBT_ARGUMENT ...]"


def run(options: argparse.Namespace) -> int:
    """Run it."""
    configure_dlt()
    from loaders.jobs.job import Job
    from loaders.monitoring.alerts.job_end import run_and_tell
    from loaders.transform import dbt_build

    warehouse = warehouse_of(options)
    arguments: list[str] = options.dbt_arguments
    parameters = {"dbt_arguments": _recorded(_with_names_of_vars(arguments))}
    dbt_build.check_arguments(arguments)
    job = Job(warehouse, job_name="build", source_system="dbt", parameters=parameters)

    def work() -> None:
        job.start()
        try:
            job.step = "merge"
            with warehouse.open():
                result = dbt_build.build(
                    warehouse.target, job.correlation_id, arguments, quiet=False
                )
                counts = job.counts()
                job.step = "check" if not result.error or result.tests["failed"] else "merge"
                if result.error:
                    raise result.error
                job.complete({**counts, "tests": result.tests, "merge": {}})
        except BaseException as error:
            job.fail(error)
            raise

    run_and_tell(job, work)
    print(f"run: {job.correlation_id}")
    return 0


def _with_names_of_vars(arguments: Sequence[str]) -> list[str]:
    """The arguments with the names alone of --vars; their values are secrets from here on."""
    shown: list[str] = []
    for argument in arguments:
        option, equals, text = argument.partition("=")
        if shown and shown[-1] == "--vars":
            shown.append(_names(argument))
        else:
            shown.append(f"--vars={_names(text)}" if equals and option == "--vars" else argument)
    return shown


def _names(text: str) -> str:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    named = value if isinstance(value, dict) else {}
    # As it was typed, and as dbt writes it.
    for secret in (text, str(value), *_texts(value)):
        register_secret(secret)
    return f"{{{', '.join(f'{name}: ***' for name in named)}}}" if named else "***"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def _recorded(arguments: Sequence[str]) -> list[str]:
    """The arguments that job.started has room for, and how many it leaves out."""
    from loaders.jobs.event_log import MAX_PAYLOAD_BYTES

    room = MAX_PAYLOAD_BYTES // 2
    for number, argument in enumerate(arguments):
        room -= len(json.dumps(argument))
        if room < 0:
            return [*arguments[:number], f"… {len(arguments) - number} more"]
    return [*arguments]

"""`python -m tests.chaos`: kill runs and check that nothing is lost, nothing twice."""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.chaos.campaign import Campaign, new_directory
from tests.chaos.cases import (
    Case,
    disaster_cases,
    few_named_cases,
    named_cases,
    parse_case,
    random_cases,
)
from tests.chaos.display import Display
from tests.chaos.harness import Harness, Outcome
from tests.chaos.scenarios import SCENARIOS
from tests.peers.emulator import run_emulator

_OWN_EMULATOR = "its own"
_EPILOG = """\
cases, each after a scenario and a slash, such as stripe-backfill/land.loaded:2
(gmail-backfill where none is named):
  land.loaded:2          SIGKILL when the point is reached the second time
  merge.before:SIGTERM   another signal; points are named in loaders/jobs/crashpoints.py
  SIGINT@1.5s            a signal so many seconds after the start
  cold:SIGTERM:30        a process of its own, when the API has answered 30 requests of it
  torn-cache:0.5         SIGKILL at merge.before, and dbt's parse cache is cut in half
  land.loaded+events:1   and then what tests/chaos/disasters.py names

scenarios:
  """ + "\n  ".join(SCENARIOS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases asked for and return 0 when all of them passed."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    directory: Path = options.resume or options.directory or new_directory()
    with (
        _emulator(options.emulator, directory) as url,
        Harness(directory, options.jobs, url, without_marts=options.without_marts) as harness,
    ):
        campaign = _campaign(options, directory, harness)
        left = campaign.left()
        print(f"{len(left)} cases, seed {campaign.seed}, results in {directory}", flush=True)
        display = Display(len(campaign.cases), len(left))
        with contextlib.suppress(KeyboardInterrupt):
            for outcome in harness.run(left):
                campaign.record(outcome)
                display.show(outcome, _advice(outcome, directory, options.emulator))
                if outcome.is_passed and not options.keep:
                    shutil.rmtree(directory / outcome.case.directory)
    display.close()
    unfinished = campaign.left()
    if unfinished and not display.failed:
        print(f"go on with: python -m tests.chaos --resume {directory}{_option(options.emulator)}")
    return 1 if unfinished or not campaign.cases else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--case",
        action="append",
        type=_case,
        default=[],
        metavar="CASE",
        help="this one; may be repeated (default: the whole campaign)",
    )
    parser.add_argument(
        "--instants",
        type=int,
        metavar="N",
        help="random instants of the campaign (default 200, on the emulator 8)",
    )
    parser.add_argument("--seed", type=int, help="of the random instants (default: a new one)")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time (default 2)")
    parser.add_argument(
        "--emulator",
        nargs="?",
        const=_OWN_EMULATOR,
        metavar="URL",
        help="on a BigQuery emulator, one of its own unless there is a URL, and not on DuckDB",
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--directory", type=Path, help="of results and evidence (default: below target/chaos)"
    )
    place.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on with the cases that have not passed"
    )
    parser.add_argument(
        "--without-marts", action="store_true", help="build raw_objects and run the tests only"
    )
    parser.add_argument(
        "--disasters", action="store_true", help="kills after which the warehouse is put back"
    )
    parser.add_argument("--keep", action="store_true", help="keep the evidence of passed cases too")
    return parser


def _case(name: str) -> Case:
    try:
        return parse_case(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _campaign(options: argparse.Namespace, directory: Path, harness: Harness) -> Campaign:
    is_on_emulator = options.emulator is not None
    if options.resume:
        campaign = Campaign.resume(directory)
        if campaign.is_on_emulator != is_on_emulator:
            expected = "with" if campaign.is_on_emulator else "without"
            sys.exit(f"chaos: {directory} is to be resumed {expected} --emulator")
        return campaign
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    cases = options.case or (
        [*disaster_cases()] if options.disasters else _all_cases(options, seed, harness)
    )
    return Campaign.begin(directory, seed, cases, is_on_emulator=is_on_emulator)


def _all_cases(options: argparse.Namespace, seed: int, harness: Harness) -> list[Case]:
    """Named cases and random instants, mixed: they take different times, and fail differently."""
    is_on_emulator = options.emulator is not None
    instants = options.instants
    if instants is None:
        instants = 8 if is_on_emulator else 200
    cases = [*(few_named_cases() if is_on_emulator else named_cases())]
    if instants:
        names = [one.name for one in SCENARIOS.values() if one.is_main or not is_on_emulator]
        print(f"measuring how long runs take in {len(names)} scenarios", flush=True)
        cases += random_cases(instants, seed, harness.typical_seconds(names))
    random.Random(seed).shuffle(cases)
    return cases


@contextlib.contextmanager
def _emulator(asked: str | None, directory: Path) -> Iterator[str | None]:
    if asked != _OWN_EMULATOR:
        yield asked
        return
    data = directory / "emulator"
    shutil.rmtree(data, ignore_errors=True)
    with run_emulator(data) as emulator:
        yield emulator.url
    shutil.rmtree(data)


def _advice(outcome: Outcome, directory: Path, emulator: str | None) -> list[str]:
    return [
        f"evidence in {directory / outcome.case.directory}",
        f"again: python -m tests.chaos --case {outcome.case.name}{_option(emulator)}",
    ]


def _option(emulator: str | None) -> str:
    if emulator is None:
        return ""
    return " --emulator" if emulator == _OWN_EMULATOR else f" --emulator {emulator}"


if __name__ == "__main__":
    sys.exit(main())

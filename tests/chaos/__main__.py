"""`python -m tests.chaos`: kill ingestions and check that nothing is lost, nothing twice."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.chaos.cases import SAMPLE, Case, parse_case, random_cases
from tests.chaos.harness import Harness, Outcome

_SHOWN_VIOLATIONS = 10
_EPILOG = """\
cases:
  land.loaded:2          SIGKILL when the point is reached the second time
  merge.before:SIGTERM   another signal; points are named in loaders/crashpoints.py
  SIGINT@1.5s            a signal so many seconds after the start
  cold:SIGTERM           a process of its own, while it fetches messages
  torn-cache:0.5         SIGKILL at merge.before, and dbt's parse cache is cut in half
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases asked for and return 0 when all of them passed."""
    options = _parser().parse_args(arguments)
    with (
        _directory(options.directory) as directory,
        Harness(directory, options.jobs, options.emulator) as harness,
    ):
        failed = passed = 0
        for outcome in harness.run(_cases(options, harness)):
            print(_line(outcome, directory), flush=True)
            passed += outcome.is_passed
            failed += not outcome.is_passed
            if outcome.is_passed and options.directory is None:
                shutil.rmtree(directory / outcome.case.directory)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--case", action="append", type=_case, default=[], metavar="CASE", help="may be repeated"
    )
    parser.add_argument("--sample", action="store_true", help="the fixed sample")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="N random instants")
    parser.add_argument("--seed", type=int, default=1, help="of the random instants (default 1)")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time (default 1)")
    parser.add_argument(
        "--emulator", metavar="URL", help="on this BigQuery emulator (make emulator), not on DuckDB"
    )
    parser.add_argument(
        "--directory", type=Path, help="keep all evidence there (default: that of failures only)"
    )
    return parser


def _case(name: str) -> Case:
    try:
        return parse_case(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _cases(options: argparse.Namespace, harness: Harness) -> list[Case]:
    cases = [*options.case, *(SAMPLE if options.sample else ())]
    if options.random:
        seconds = round(harness.typical_seconds(), 2)
        print(f"{options.random} instants of seed {options.seed} within {seconds:.2f} s")
        cases += random_cases(options.random, options.seed, seconds)
    return cases


@contextlib.contextmanager
def _directory(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        yield kept
        return
    directory = Path(tempfile.mkdtemp(prefix="landfall-chaos-"))
    yield directory
    for slot in directory.glob("slot-*"):
        shutil.rmtree(slot)
    if not any(path.is_dir() for path in directory.iterdir()):
        shutil.rmtree(directory)


def _line(outcome: Outcome, directory: Path) -> str:
    verdict = "ok  " if outcome.is_passed else "FAIL"
    line = (
        f"{verdict}  {outcome.case.name:<28} exit {outcome.exit_code:>4} {outcome.seconds:6.1f} s"
    )
    if outcome.is_passed:
        return line
    shown = outcome.violations[:_SHOWN_VIOLATIONS]
    hidden = len(outcome.violations) - len(shown)
    return "\n      ".join(
        [
            line,
            *shown,
            *([f"and {hidden} more"] if hidden else []),
            f"evidence in {directory / outcome.case.directory}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

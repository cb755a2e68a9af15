"""A campaign's directory: its plan, and what became of each case so far."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from loaders.settings.places import PROJECT_DIR
from tests.chaos.cases import Case, parse_case
from tests.chaos.harness import Outcome

_PLAN, _RESULTS = "plan.json", "results.jsonl"


@dataclasses.dataclass(frozen=True)
class Campaign:
    """Cases, and the seed that their random instants were drawn with."""

    directory: Path
    seed: int
    cases: tuple[Case, ...]
    is_on_emulator: bool

    @classmethod
    def begin(
        cls, directory: Path, seed: int, cases: Sequence[Case], *, is_on_emulator: bool
    ) -> Campaign:
        """Write down what is to be done. Raises FileExistsError where that is done already."""
        directory.mkdir(parents=True, exist_ok=True)
        names = [case.name for case in cases]
        plan = {"seed": seed, "is_on_emulator": is_on_emulator, "cases": names}
        with (directory / _PLAN).open("x") as file:
            json.dump(plan, file, indent=1)
        return cls(directory, seed, tuple(cases), is_on_emulator)

    @classmethod
    def resume(cls, directory: Path) -> Campaign:
        """Read what was to be done. Raises OSError and ValueError."""
        results = directory / _RESULTS
        if results.exists() and not results.read_text().endswith("\n"):
            with results.open("a") as file:
                file.write("\n")  # the last line was cut off in the writing
        plan = json.loads((directory / _PLAN).read_text())
        cases = tuple(map(parse_case, plan["cases"]))
        return cls(directory, plan["seed"], cases, plan["is_on_emulator"])

    def left(self) -> list[Case]:
        """The cases that have not passed, in their order."""
        passed = {name for name, is_passed in self._results() if is_passed}
        return [case for case in self.cases if case.name not in passed]

    def record(self, outcome: Outcome) -> None:
        """Append what became of a case."""
        line = {
            "case": outcome.case.name,
            "is_passed": outcome.is_passed,
            "was_killed": outcome.was_killed,
            "exit_code": outcome.exit_code,
            "seconds": round(outcome.seconds, 2),
            "violations": outcome.violations,
        }
        with (self.directory / _RESULTS).open("a") as results:
            results.write(json.dumps(line) + "\n")

    def _results(self) -> Iterator[tuple[str, bool]]:
        path = self.directory / _RESULTS
        for line in path.read_text().splitlines() if path.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):  # cut off in the writing
                result = json.loads(line)
                yield result["case"], result["is_passed"]


def new_directory() -> Path:
    """A place for a campaign's results, named by the moment."""
    return PROJECT_DIR / "target" / "chaos" / f"{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}"

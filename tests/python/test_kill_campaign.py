"""The campaign of `make chaos`: its cases, its results, how it goes on after an interruption."""

from __future__ import annotations

import collections
import dataclasses
import io
import signal
from pathlib import Path

import pytest

from loaders.jobs import crashpoints
from tests.chaos.campaign import Campaign
from tests.chaos.cases import Case, few_named_cases, named_cases, parse_case, random_cases
from tests.chaos.display import Display
from tests.chaos.harness import Outcome
from tests.chaos.scenarios import SCENARIOS

CASES = [parse_case(f"gmail-incremental/{kill}") for kill in ("merge.after", "SIGINT@1.5s")]


def passed(case: Case, *violations: str) -> Outcome:
    return Outcome(case, -9, 1.0, violations)


def test_every_crash_point_meets_every_signal_in_the_main_scenarios() -> None:
    met = collections.defaultdict(set)
    for case in named_cases():
        if case.point and case.cache_kept is None:
            met[case.scenario].add((case.point, case.signal))
    for scenario in SCENARIOS.values():
        signals = ("SIGKILL", "SIGTERM", "SIGINT") if scenario.is_main else ("SIGKILL",)
        assert met[scenario.name] == {
            (point, signal.Signals[name]) for point in crashpoints.NAMES for name in signals
        }


def test_processes_of_their_own_are_ended_at_ten_moments_by_each_signal() -> None:
    cold = collections.Counter(case.signal.name for case in named_cases() if case.is_cold)
    assert cold == {"SIGKILL": 10, "SIGTERM": 10, "SIGINT": 10}


def test_the_emulator_has_each_crash_point_once_in_each_main_scenario_with_each_signal() -> None:
    cases = list(few_named_cases())
    mains = {name for name, scenario in SCENARIOS.items() if scenario.is_main}
    assert [case.point for case in cases] == list(crashpoints.NAMES)
    assert {(case.scenario, case.signal.name) for case in cases} == {
        (name, number) for name in mains for number in ("SIGKILL", "SIGTERM", "SIGINT")
    }


def test_a_case_is_found_again_by_its_name_and_a_seed_gives_the_same_instants() -> None:
    seconds = {"gmail-backfill": 2.0, "stripe-backfill": 4.0}
    cases = [*named_cases(), *few_named_cases(), *random_cases(20, 7, seconds)]
    assert [parse_case(case.name) for case in cases] == cases
    assert [*random_cases(20, 7, seconds)] == cases[-20:]
    assert [*random_cases(20, 8, seconds)] != cases[-20:]
    assert len({case.directory for case in named_cases()}) == len([*named_cases()])


@pytest.mark.parametrize(
    "name", ["nowhere/merge.after", "merge.never", "merge.after:SIGHUP", "SIGINT@soon", "cold"]
)
def test_a_case_that_cannot_be_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_case(name)


def test_an_interrupted_campaign_goes_on_with_what_has_not_passed(tmp_path: Path) -> None:
    campaign = Campaign.begin(tmp_path, 5, CASES, is_on_emulator=False)
    campaign.record(passed(CASES[0]))
    campaign.record(passed(CASES[1], "stored: message 1 is missing"))
    with (tmp_path / "results.jsonl").open("a") as results:
        results.write('{"case": "gmail-incremental/SIGINT@1.5s", "is_pas')  # cut off by a kill

    resumed = Campaign.resume(tmp_path)

    assert (resumed.seed, resumed.cases) == (5, tuple(CASES))
    assert resumed.left() == [CASES[1]]
    resumed.record(passed(CASES[1]))
    assert resumed.left() == []


def test_a_directory_with_a_campaign_takes_no_other(tmp_path: Path) -> None:
    Campaign.begin(tmp_path, 5, CASES, is_on_emulator=False)
    with pytest.raises(FileExistsError):
        Campaign.begin(tmp_path, 6, CASES, is_on_emulator=False)


def test_progress_is_plain_lines_where_there_is_no_terminal() -> None:
    output = io.StringIO()
    display = Display(3, 2, output)
    display.show(dataclasses.replace(passed(CASES[0]), was_killed=False), ["again: …"])
    display.show(passed(CASES[1], "stored: message 1 is missing"), ["again: …"])
    display.close()
    lines = output.getvalue().splitlines()
    assert lines[0].startswith(f"ok   {CASES[0].name} ")
    assert lines[0].endswith("2/3, 0 min left")
    assert lines[1].startswith(f"FAIL {CASES[1].name} ")
    assert lines[1].endswith("3/3, 1 failed, 0 min left")
    assert [line.strip() for line in lines[2:4]] == ["stored: message 1 is missing", "again: …"]
    counts, missed, _ = lines[4].split("; ")
    assert counts == "1 passed, 1 failed, 1 passed before"
    assert missed == "1 had ended before their instant"

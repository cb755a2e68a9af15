"""What docs/bigquery.md says of the bill, against the bench that it quotes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from loaders.settings.places import PROJECT_DIR
from tests.bench import bill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROW = re.compile(r"^\| ((?:gmail|stripe): [\w, ]+) \| (\d+) \| (\d+) \| (.+) \|$", re.MULTILINE)
TOLERANCE = 0.05
"""What the sandbox makes differs a little from release to release."""


def dollars(bytes_a_run: float) -> float:
    """A month of hourly runs."""
    return bytes_a_run * bill.RUNS_A_MONTH / 2**40 * bill.DOLLARS_A_TIB


def quoted() -> dict[str, tuple[int, int, list[tuple[float, float]]]]:
    """Jobs, requests, and promise and hope in dollars for each size stored, by run."""
    text = (PROJECT_DIR / "docs" / "bigquery.md").read_text()
    return {
        run: (
            int(jobs),
            int(requests),
            [
                (float(promise.replace(",", "")), float(hope.replace(",", "")))
                for promise, hope in re.findall(r"\$([\d.,]+) \(\$([\d.,]+)\)", prices)
            ],
        )
        for run, jobs, requests, prices in ROW.findall(text)
    }


def test_the_docs_quote_the_bench() -> None:
    figures: dict[str, Any] = bill.run(quick=False)
    rows = quoted()
    assert len(rows) == 6
    for run, (jobs, requests, prices) in rows.items():
        found = figures[run]
        assert abs(found["query_jobs"] - jobs) <= 2, run
        assert abs(found["requests"] - requests) <= 6, run
        for size, (promise, hope) in zip(bill.STORED_GB, prices, strict=True):
            of_size = found[f"{size} GB, 1 connections"]
            assert dollars(of_size["promise"]) == pytest.approx(promise, rel=TOLERANCE), (run, size)
            assert dollars(of_size["hope"]) == pytest.approx(hope, rel=TOLERANCE), (run, size)

"""Lets GoogleSQL's analyzer judge what an emulator was sent, each statement once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.peers.datasets import OWN_LABELS
from tests.peers.emulator import Emulator
from tests.peers.googlesql import Analyzer, Verdict

# dlt sends these about its own tables, which it creates by API and not by SQL.
_OF_DLT = ("_dlt_version", "_dlt_pipeline_state")
# What changes from run to run: comments, run ids, moments.
_PASSING = re.compile(r"/\*.*?\*/|[0-9a-f-]*[0-9][0-9a-f-]*", re.DOTALL)
_DEFINES = re.compile(r"(?i)\b(create|alter|drop)\s")


class Gate:
    """Asks about new kinds of statements only: thousands are sent that differ in run ids."""

    def __init__(self, emulator: Emulator, analyzer: Analyzer) -> None:
        self._emulator = emulator
        self.analyzer = analyzer
        self._position = 0
        self._judged: set[str] = set()

    def verdicts(self) -> list[Verdict]:
        """Verdicts on the new kinds of statements that came since the last call."""
        jobs, self._position = self._emulator.jobs_since(self._position)
        queries = [job["query"] for job in jobs if job.get("labels") != OWN_LABELS]
        return [
            verdict
            for verdict in self.analyzer.judge(self._of_a_new_kind(queries))
            if not any(name in verdict.statement for name in _OF_DLT)
        ]

    def refused(self) -> dict[str, str]:
        """GoogleSQL's complaints about those, each with a statement."""
        return {verdict.error: verdict.statement for verdict in self.verdicts() if verdict.error}

    def _of_a_new_kind(self, queries: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for query in queries:
            kinds = [each["parameterType"]["type"] for each in query.get("queryParameters") or []]
            shape = _PASSING.sub("", query["query"]) + " ".join(kinds)
            # A table may be made anew in another shape: the analyzer is told of each.
            if shape not in self._judged or _DEFINES.search(query["query"]):
                self._judged.add(shape)
                yield query

"""What a run sends to BigQuery, as the emulator saw it: jobs, HTTP requests, tables, views."""

from __future__ import annotations

import dataclasses
import json
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.peers.emulator import PROJECT, Emulator

_LIST_PAGE = 1_000


@dataclasses.dataclass(frozen=True)
class Job:
    """One job of any kind; times are milliseconds of the emulator's clock."""

    kind: str
    """query, load, copy or extract."""
    text: str
    """The statement of a query; the table that a load writes, as dataset.table."""
    parameters: tuple[tuple[str, str | None], ...]
    """Type and value of each, in their order."""
    labels: tuple[tuple[str, str], ...]
    began: int
    ended: int
    error: str
    """What the emulator said against it; nothing when it succeeded."""


@dataclasses.dataclass(frozen=True)
class Sent:
    """What a command sent: its jobs in the order they were made, and all requests by HTTP."""

    jobs: tuple[Job, ...]
    requests: int
    seconds: float = 0.0

    @property
    def chain(self) -> int:
        """The longest sequence of jobs of which each began after the one before it had ended.

        Greedy by the earliest end, which is the longest there is.
        """
        length, free = 0, -1
        for job in sorted(self.jobs, key=lambda each: each.ended):
            if job.began >= free:
                length, free = length + 1, job.ended
        return length


class Recorder:
    """Reads an emulator's own lists: what came since the last look."""

    def __init__(self, emulator: Emulator, data: Path) -> None:
        self._url = f"{emulator.url}/bigquery/v2/projects/{PROJECT}"
        self._log = data / "emulator.log"
        self._seen: set[str] = set()
        self._position = 0

    def take(self, seconds: float = 0.0) -> Sent:
        """What was sent since the last call, of which the reading here is no part."""
        requests = self._requests()
        fresh = [job for job in self._jobs() if job["jobReference"]["jobId"] not in self._seen]
        self._seen |= {job["jobReference"]["jobId"] for job in fresh}
        self._requests()
        fresh.sort(key=lambda job: int(job["statistics"]["creationTime"]))
        return Sent(tuple(map(_job, fresh)), requests, seconds)

    def tables(self) -> list[dict[str, Any]]:
        """Every table and view as tables.get tells it."""
        datasets = self._pages("/datasets", "datasets")
        return [
            self._get(f"/datasets/{name}/tables/{table['tableReference']['tableId']}")
            for dataset in datasets
            for name in [dataset["datasetReference"]["datasetId"]]
            for table in self._pages(f"/datasets/{name}/tables", "tables")
        ]

    def averages(
        self, table: str, expressions: dict[str, str], condition: str
    ) -> tuple[int, dict[str, float]]:
        """The number of rows of a table that a condition holds for, and averages over them of SQL
        by name; 0 of no rows."""
        wanted = ", ".join(f"avg({sql})" for sql in expressions.values())
        query = f"select count(*), {wanted} from {table} where {condition}"
        body = {"query": query, "useLegacySql": False}
        request = urllib.request.Request(
            f"{self._url}/queries", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            count, *found = [cell["v"] for cell in json.load(answer)["rows"][0]["f"]]
        averages = (float(value or 0.0) for value in found)
        return int(count), dict(zip(expressions, averages, strict=True))

    def _requests(self) -> int:
        """Lines of the server's access log since the last call: one is one request."""
        with self._log.open("rb") as log:
            log.seek(self._position)
            lines = log.readlines()
            self._position = log.tell()
        return sum(b' HTTP/1.1" ' in line for line in lines)

    def _jobs(self) -> list[dict[str, Any]]:
        return self._pages("/jobs", "jobs", projection="full", allUsers="true")

    def _pages(self, path: str, items: str, **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        query["maxResults"] = str(_LIST_PAGE)
        while True:
            answer = self._get(f"{path}?{urllib.parse.urlencode(query)}")
            found += answer.get(items) or []
            if not answer.get("nextPageToken"):
                return found
            query["pageToken"] = answer["nextPageToken"]

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self._url + path, timeout=60) as answer:
            content: dict[str, Any] = json.load(answer)
        return content


def _job(resource: dict[str, Any]) -> Job:
    configuration, statistics = resource["configuration"], resource["statistics"]
    kind = next(name for name in ("query", "load", "copy", "extract") if configuration.get(name))
    of_kind = configuration[kind]
    began = int(statistics.get("startTime") or statistics["creationTime"])
    return Job(
        kind,
        of_kind["query"] if kind == "query" else _destination(of_kind),
        _parameters(of_kind.get("queryParameters") or ()),
        tuple(sorted((configuration.get("labels") or {}).items())),
        began,
        int(statistics.get("endTime") or began),
        str((resource.get("errorResult") or {}).get("message", "")),
    )


def _destination(configuration: dict[str, Any]) -> str:
    table = configuration.get("destinationTable") or {}
    return f"{table.get('datasetId')}.{table.get('tableId')}"


def _parameters(parameters: Sequence[dict[str, Any]]) -> tuple[tuple[str, str | None], ...]:
    return tuple(
        (each["parameterType"]["type"], each["parameterValue"].get("value")) for each in parameters
    )

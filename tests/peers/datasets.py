"""Empties an emulator's datasets, and brings their tables back as they once were."""

from __future__ import annotations

import functools
import http
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any

from tests.peers.emulator import PROJECT, Emulator

DATASETS = ("events", "events_staging")
OWN_LABELS = {"application": "tests"}
"""Of the statements sent here, which are not the project's."""
_TABLE = "TABLE"

TablePath = tuple[str, str]
"""Dataset and name of a table or view."""
View = tuple[str, dict[str, str]]
"""Its SQL and its labels."""


class Datasets:
    """What the project's target `emulator` writes into; copies are kept in other datasets.

    Tables come back with their rows, views by their SQL, with their labels.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._url = emulator.url
        self._saved: dict[str, list[TablePath]] = {}
        self._views: dict[str, dict[TablePath, View]] = {}

    def empty(self) -> None:
        """Leave no dataset."""
        delete_datasets(self._url, *DATASETS)

    def holds(self, name: str) -> bool:
        """Whether there is a copy of this name."""
        return name in self._saved

    def save(self, name: str) -> None:
        """Keep a copy of every table and view."""
        present = self._present()
        tables = [path for path, kind in present.items() if kind == _TABLE]
        views = {
            path: self._client.get_table(".".join(path)) for path in present.keys() - set(tables)
        }
        # A view may read those that were made before it.
        in_order = sorted(views, key=lambda path: views[path].created)
        self._views[name] = {
            path: (views[path].view_query, views[path].labels) for path in in_order
        }
        for dataset in DATASETS:
            self._client.create_dataset(f"{name}_{dataset}")
        for dataset, table in tables:
            self._copy(f"{dataset}.{table}", f"{name}_{dataset}.{table}")
        self._saved[name] = tables

    def restore(self, name: str) -> None:
        """Leave what a copy has, and nothing else."""
        from google.api_core.exceptions import BadRequest

        saved, present = self._saved[name], self._present()
        kept = [path for path in saved if present.get(path) == _TABLE]
        for path in present.keys() - set(kept):
            self._client.delete_table(".".join(path))
        for dataset in DATASETS:
            self._client.create_dataset(dataset, exists_ok=True)
        for dataset, table in set(saved) - set(kept):
            self._copy(f"{name}_{dataset}.{table}", f"{dataset}.{table}")
        try:
            # Several times quicker than to make a table anew.
            self._run(
                statement
                for dataset, table in kept
                for statement in (
                    f"truncate table {dataset}.{table}",
                    f"insert into {dataset}.{table} select * from {name}_{dataset}.{table}",
                )
            )
        except BadRequest:  # a test has changed the columns of one
            for dataset, table in kept:
                self._client.delete_table(f"{dataset}.{table}")
                self._copy(f"{name}_{dataset}.{table}", f"{dataset}.{table}")
        for path, view in self._views[name].items():
            self._create_view(path, *view)

    def _create_view(self, path: TablePath, sql: str, labels: dict[str, str]) -> None:
        from google.cloud import bigquery

        view = bigquery.Table(".".join((PROJECT, *path)))
        view.view_query, view.labels = sql, labels
        self._client.create_table(view)

    def _present(self) -> dict[TablePath, str]:
        from google.api_core.exceptions import NotFound

        found: dict[TablePath, str] = {}
        for dataset in DATASETS:
            try:
                tables = list(self._client.list_tables(dataset))
            except NotFound:
                continue
            found |= {(dataset, table.table_id): table.table_type for table in tables}
        return found

    def _copy(self, source: str, destination: str) -> None:
        self._client.copy_table(f"{PROJECT}.{source}", f"{PROJECT}.{destination}").result()

    def _run(self, statements: Iterable[str]) -> None:
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(labels=OWN_LABELS)
        self._client.query(";\n".join(statements), job_config=config).result()

    @functools.cached_property
    def _client(self) -> Any:
        return _new_client(self._url)


def copy_tables(url: str, source: str, destination: str) -> None:
    """Copy the tables, but no view, of a dataset at `url` into a new one; of none, none."""
    from google.api_core.exceptions import NotFound

    client = _new_client(url)
    try:
        tables = [one for one in client.list_tables(source) if one.table_type == _TABLE]
    except NotFound:
        return
    client.create_dataset(destination)
    for table in tables:
        copy = f"{PROJECT}.{destination}.{table.table_id}"
        client.copy_table(f"{PROJECT}.{source}.{table.table_id}", copy).result()


def delete_datasets(url: str, *names: str) -> None:
    """Delete datasets of the emulator at `url`, with their tables; those that exist."""
    for name in names:
        address = f"{url}/bigquery/v2/projects/{PROJECT}/datasets/{name}?deleteContents=true"
        request = urllib.request.Request(address, method="DELETE")
        try:
            urllib.request.urlopen(request, timeout=60).close()
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.NOT_FOUND:
                raise


def _new_client(url: str) -> Any:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    return bigquery.Client(
        project=PROJECT,
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": url},
    )

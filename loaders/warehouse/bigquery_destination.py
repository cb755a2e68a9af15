"""dlt's BigQuery destination, its jobs like all others of a run: labelled, and with a limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.cloud import bigquery


def destination(
    credentials: Any, project: str, location: str, labels: Mapping[str, str], limit: int | None
) -> Any:
    """The destination; `limit` are the bytes that a statement may be billed for."""
    import dlt
    from dlt.destinations.impl.bigquery.bigquery import BigQueryClient

    class Client(BigQueryClient):
        """dlt gives Google's client no defaults, and has no option for its jobs' labels."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            connect = self.sql_client.open_connection

            def open_connection() -> bigquery.Client:
                client = connect()
                queries = bigquery.QueryJobConfig(labels=dict(labels))
                if limit is not None:
                    queries.maximum_bytes_billed = limit
                client.default_query_job_config = queries
                client.default_load_job_config = bigquery.LoadJobConfig(labels=dict(labels))
                return client

            self.sql_client.open_connection = open_connection  # type: ignore[method-assign]

    class Destination(dlt.destinations.bigquery):
        @property
        def destination_type(self) -> str:
            """As dlt notes it with a package: it is dlt's own but for the jobs."""
            return "dlt.destinations.bigquery"

        @property
        def client_class(self) -> type[BigQueryClient]:
            return Client

    return Destination(
        credentials=_as_dlt_credentials(credentials, project),
        project_id=project,
        location=location,
    )


def _as_dlt_credentials(native: Any, project: str) -> Any:
    """Google's credentials object in the shape that dlt asks for, of whatever kind it is.

    dlt takes some kinds as they are, and fails on those of a service account.
    """
    from dlt.common.configuration import configspec
    from dlt.common.configuration.specs import GcpServiceAccountCredentials

    @configspec
    class DbtCredentials(GcpServiceAccountCredentials):
        def to_native_credentials(self) -> Any:
            return native

    credentials = DbtCredentials()
    credentials.project_id = project
    # Otherwise dlt would make one of its own kind of it.
    credentials.__is_resolved__ = True
    # Required by the shape, never read.
    credentials.private_key = credentials.client_email = "see to_native_credentials"
    return credentials

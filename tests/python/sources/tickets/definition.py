from __future__ import annotations

from loaders.sources.definition import Definition

SOURCE = Definition(
    name="tickets",
    summary="fetch the tickets of a help desk",
    unit="tickets",
    options=("token", "api_base_url", "workers", "max_attempts", "backoff_seconds"),
    object_types=("ticket",),
)

"""What the loaders and the project's SQL both go by: `vars.constants` of dbt_project.yml."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from loaders.errors import ConfigError

_PROJECT = Path(__file__).resolve().parents[2] / "dbt_project.yml"


@dataclasses.dataclass(frozen=True)
class Constants:
    """Each of them; dbt_project.yml says what they mean."""

    event_types: Sequence[str]
    merge_actions: Sequence[str]
    merge_statistics: Sequence[str]
    failed_statuses: Sequence[str]
    test_outcomes: Mapping[str, str]
    traceparent: str
    grace_seconds: int
    backfill_parameters: Sequence[str]
    part_owners: Mapping[str, Mapping[str, str]]


@functools.cache
def constants() -> Constants:
    """Read once, when first asked for. Raises ConfigError."""
    try:
        project = yaml.load(_PROJECT.read_text(), Loader=yaml.CSafeLoader)
        return Constants(**project["vars"]["constants"])
    except (OSError, yaml.YAMLError, LookupError, TypeError) as error:
        raise ConfigError(f"{_PROJECT}: cannot be read: {error}") from error

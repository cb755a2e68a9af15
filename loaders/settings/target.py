"""The warehouse of a run: a target of the dbt profile."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from loaders.errors import ConfigError, register_secret
from loaders.settings.places import PACKAGE_NAME, PROJECT_DIR, shown

_SECRETS = ("token", "refresh_token", "client_secret", "private_key", "password")


@dataclasses.dataclass(frozen=True)
class Target:
    """One output of the dbt profile: where events, objects and the landing queue live."""

    name: str
    type: str
    settings: Mapping[str, Any]
    profiles_dir: Path
    has_inline_secrets: bool = False
    """Whether profiles.yml itself holds secrets of it, and not the environment."""

    @property
    def schema(self) -> str:
        """Dataset of event_log and the models."""
        return str(self.settings.get("schema") or self.settings.get("dataset"))

    @property
    def staging_schema(self) -> str:
        """Dataset of the landing queue."""
        return f"{self.schema}_staging"

    @property
    def key(self) -> str:
        """A name for this target that is safe in a path, with its database's location."""
        return re.sub(r"[^A-Za-z0-9_.-]", "_", f"{self.name}-{self.location}")

    @property
    def location(self) -> str:
        """Where the target's database is: a file or a project and dataset."""
        if self.type == "duckdb":
            return str(self.path)
        return f"{self.settings.get('project')}.{self.schema}"

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine: a DuckDB file, or a stand-in for BigQuery."""
        return self.type == "duckdb" or bool(self.settings.get("api_endpoint"))

    @property
    def shown(self) -> str:
        """The target for a person."""
        return f"{shown(self.location)} (target {self.name})"

    @property
    def path(self) -> Path:
        """The DuckDB file; a relative one is relative to the project, as it is for dbt."""
        return PROJECT_DIR / str(self.settings["path"])


def profiles_dir() -> Path:
    """Where profiles.yml is: DBT_PROFILES_DIR, the project, then ~/.dbt."""
    configured = os.environ.get("DBT_PROFILES_DIR")
    if configured:
        return Path(configured)
    for directory in (PROJECT_DIR, Path.home() / ".dbt"):
        if (directory / "profiles.yml").exists():
            return directory
    raise ConfigError(
        f"profiles.yml: not found in {PROJECT_DIR} or ~/.dbt; copy profiles.example.yml to it"
    )


def load_target(name: str | None = None) -> Target:
    """Read a target of the `landfall` profile as dbt reads it.

    Raises ConfigError for a profile that is missing, unreadable or lacks the target.
    """
    directory = profiles_dir()
    path = directory / "profiles.yml"
    try:
        profile = yaml.safe_load(path.read_text())[PACKAGE_NAME]
        outputs = profile["outputs"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: expected a profile '{PACKAGE_NAME}' with outputs"
            f" ({type(error).__name__}); compare profiles.example.yml"
        ) from error
    chosen = name or _render(profile.get("target", "default"))
    if chosen not in outputs:
        raise ConfigError(f"{path}: no target '{chosen}'; it has {', '.join(sorted(outputs))}")
    settings = {key: _render(value) for key, value in outputs[chosen].items()}
    if settings.get("type") not in ("duckdb", "bigquery"):
        raise ConfigError(
            f"{path}: target '{chosen}' has type {settings.get('type')!r};"
            " expected duckdb or bigquery"
        )
    _register_secrets(settings)
    inline = [name for name in (*_SECRETS, "keyfile_json") if settings.get(name)]
    # Those of a stand-in are made up.
    has_secrets = not settings.get("api_endpoint") and any(
        settings[name] == outputs[chosen][name] for name in inline
    )
    return Target(chosen, settings["type"], settings, directory, has_secrets)


def _register_secrets(settings: Mapping[str, Any]) -> None:
    """Remember the secrets of a profile; a key file's content is a mapping, its JSON, or base64."""
    for name in _SECRETS:
        if settings.get(name):
            register_secret(str(settings[name]))
    content = settings.get("keyfile_json")
    if isinstance(content, str):
        register_secret(content)
        with contextlib.suppress(ValueError):
            content = json.loads(content if "{" in content else base64.b64decode(content))
    if isinstance(content, Mapping):
        _register_secrets(content)


def _render(value: Any) -> Any:
    """Render `env_var` in profile values, the only Jinja that a profile needs."""
    if isinstance(value, Mapping):
        return {key: _render(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_render(item) for item in value]
    if not isinstance(value, str) or "{{" not in value:
        return value
    from jinja2 import TemplateError
    from jinja2.nativetypes import NativeEnvironment

    try:
        return NativeEnvironment().from_string(value).render(env_var=_env_var)
    except TemplateError as error:
        raise ConfigError(f"profiles.yml: cannot render a value: {error}") from error


def _env_var(name: str, default: str | None = None) -> str:
    value = os.environ.get(name, default)
    if value is None:
        raise ConfigError(f"profiles.yml: environment variable {name} is not set")
    return value

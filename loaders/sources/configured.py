"""What dlt's configuration has under `sources`: connections, and what is none by mistake."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from loaders.errors import ConfigError
from loaders.settings.connection import SANDBOX
from loaders.settings.places import TOKEN_FILE, dlt_dir, shown
from loaders.sources.registry import SOURCES, definition

_SECTION = "sources"
_OF_DLT = (("data_writer",), ("extract",), ("schema",))
"""Sections below `sources`, and below one of them, that dlt itself reads."""
_TABLES = ("unit_costs",)
"""Options whose value is a table."""
_SECTION_DEPTH = 3
"""Names that lead to a connection."""
_LIKE = 0.7
"""From this likeness on (difflib) a name is taken for another one that is misspelt."""
_MOST_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Configured:
    """What dlt's configuration has under `sources`."""

    names: Mapping[str, list[str]]
    """Names of connections, by source."""
    others: list[str]
    """What is of no source here, and what was expected."""


@dataclasses.dataclass(frozen=True)
class _Setting:
    """An option, or an empty section: the names that lead to it, and where it stands."""

    path: tuple[str, ...]
    origin: str | None = None
    """The file or provider; None for an environment variable."""
    variable: str = ""
    is_section: bool = False
    is_table: bool = False
    """Whether the value has names of its own."""

    def spelled(self, path: Sequence[str], *, is_section: bool) -> str:
        """A path in the way in which this one is written."""
        if self.origin is None:
            return "__".join(path).upper()
        if is_section:
            return f"[{'.'.join(filter(None, path))}]"
        return f"{self.spelled(path[:-1], is_section=True)} {path[-1]}"

    def instead_of(self, wanted: tuple[str, ...]) -> str | None:
        """What stands there, where, and what was expected; None when that is the same."""
        found = self.variable or self.spelled(self.path, is_section=self.is_section)
        is_section = self.is_section
        if found == self.spelled(wanted, is_section=is_section):
            return None
        path = self.path
        if self.origin and len(path) == len(wanted) and path[-1] == wanted[-1] and not is_section:
            # The section is wrong, once for all its options.
            path, wanted, is_section = path[:-1], wanted[:-1], True
            found = self.spelled(path, is_section=True)
        return f"{found}{self.where}: expected {self.spelled(wanted, is_section=is_section)}"

    @property
    def where(self) -> str:
        """The place, for a person; of a variable its name says all."""
        return f" in {self.origin}" if self.origin else ""


def read_configured() -> Configured:
    """The connections of files, providers, variables and tokens.

    Raises ConfigError for broken files and for what can only be a mistake, by name.
    """
    settings = [*_settings()]
    mistakes: list[str] = []
    others: list[str] = []
    for setting in settings:
        source = _closest(setting.path[1], SOURCES) if len(setting.path) > 1 else None
        if source is not None:
            mistakes += filter(None, [_mistake(setting, source)])
        elif setting.path[1:2] not in (*_OF_DLT, *((),) * setting.is_section):
            others.append(_of_no_source(setting))
    if mistakes:
        raise ConfigError(
            f"configuration that is not understood: {listed(mistakes)}; correct it, or remove it"
        )
    return Configured({source: _names(source, settings) for source in SOURCES}, others)


def listed(texts: Iterable[str]) -> str:
    """Some of them, and how many more there are."""
    each = list(dict.fromkeys(texts))
    more = f"; and {len(each) - _MOST_NAMED} more" if len(each) > _MOST_NAMED else ""
    return "; ".join(each[:_MOST_NAMED]) + more


def _names(source_system: str, settings: Sequence[_Setting]) -> list[str]:
    """Connections of a source. One in a file may have capitals, which no variable can tell."""
    path = (_SECTION, source_system)
    of_source = [
        each for each in settings if each.path[:2] == path and each.path[2:3] not in ((), *_OF_DLT)
    ]
    named = {each.path[2] for each in of_source if each.origin}
    for token in dlt_dir().glob(f"{source_system}.*{TOKEN_FILE}"):
        named.add(token.name.removeprefix(f"{source_system}.").removesuffix(TOKEN_FILE))
    known = {name.lower() for name in named}
    by_variable = {each.path[2] for each in of_source if not each.origin}
    return sorted((named | by_variable - known) - {SANDBOX})


def _of_no_source(setting: _Setting) -> str:
    is_section = setting.is_section or len(setting.path) > 2
    found = setting.variable or setting.spelled(setting.path[:2], is_section=is_section)
    wanted = (setting.spelled((_SECTION, each, "NAME"), is_section=True) for each in SOURCES)
    return f"{found}{setting.where}: expected {' or '.join(wanted)}"


def _mistake(setting: _Setting, source: str) -> str | None:
    """What is wrong with a setting of a source, and what was expected."""
    start, below, options = (_SECTION, source), setting.path[2:], definition(source).options
    if below[:1] in _OF_DLT or (setting.is_section and len(below) < 2):
        return setting.instead_of((*start, *below))
    if len(below) < 2:  # an option of no connection
        name = below[0] if below else "OPTION"
        return setting.instead_of((*start, "NAME", _closest(name, options) or name))
    option = _closest("_".join(below[1:]), options)
    if option is not None and not (setting.is_table and option not in _TABLES):
        return setting.instead_of((*start, below[0], option))
    found = setting.variable or setting.spelled(setting.path, is_section=setting.is_table)
    if setting.is_table:
        above = setting.spelled((*start, below[0]), is_section=True)
        return f"{found}{setting.where}: expected options in {above}, and no section below"
    return f"{found}{setting.where}: expected an option of {source} (docs/{source}.md)"


def _closest(name: str, known: Collection[str]) -> str | None:
    """The known name that is meant: the same in other letters, its beginning, or one like it."""
    lower = name.lower()
    if known is SOURCES and (found := next((each for each in known if lower.startswith(each)), "")):
        return found
    return next(iter(difflib.get_close_matches(lower, known, 1, _LIKE)), None)


def _settings() -> Iterator[_Setting]:
    """Everything that stands under `sources`, or was to stand there."""
    for origin, document in _documents():
        for name, value in document.items():
            if name.lower() in SOURCES and isinstance(value, dict):  # `sources` was left out
                yield from _flattened(("", name), value, origin)
            elif _is_sources(name, value if isinstance(value, dict) else ()):
                yield from _flattened((name,), value, origin)
    for variable in _variables():
        path = tuple(variable.lower().split("__"))
        if len(path) > 1 and _is_sources(path[0], path[1:2]):
            yield _Setting(path, variable=variable)
        elif found := re.match(rf"sources?_+({'|'.join(SOURCES)})_", variable.lower()):
            yield _Setting((_SECTION, found[1]), variable=variable)


def _is_sources(name: str, below: Iterable[str]) -> bool:
    """Whether a top-level name is `sources`, or one like it with a source below."""
    if name.lower() in ("sources", "source"):
        return True
    is_like = difflib.get_close_matches(name.lower(), (_SECTION,), 1, _LIKE)
    return bool(is_like) and any(_closest(each, SOURCES) for each in below)


def _flattened(path: tuple[str, ...], value: Any, origin: str) -> Iterator[_Setting]:
    if not isinstance(value, dict) or len(path) > _SECTION_DEPTH:
        yield _Setting(path, origin, is_table=isinstance(value, dict))
    elif not value:
        yield _Setting(path, origin, is_section=True)
    else:
        for name, below in value.items():
            yield from _flattened((*path, name), below, origin)


def _documents() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What dlt's providers hold, those of files and those of secrets elsewhere."""
    own = [dlt_dir() / name for name in ("config.toml", "secrets.toml")]
    for path in own:  # before dlt reads them: what it says of a broken one may quote secrets
        yield shown(path), _read_toml(path)
    import dlt
    from dlt.common.configuration.providers import EnvironProvider, SettingsTomlProvider
    from dlt.common.typing import TSecretValue

    for provider in dlt.config.config_providers:
        if isinstance(provider, SettingsTomlProvider):
            for place in map(Path, provider.locations):
                if place not in own:  # the user's, for all projects
                    yield shown(place), _read_toml(place)
        elif not isinstance(provider, EnvironProvider):
            for source in SOURCES:  # a vault brings a fragment when it is asked for it
                provider.get_value(source, TSecretValue, "", _SECTION)
            value, _ = provider.get_value(_SECTION, TSecretValue, "")
            if value is not None:
                yield provider.name, {_SECTION: value}


def _variables() -> Iterator[str]:
    """Environment variables, and the secrets that dlt takes for some: files of a container."""
    from dlt.common.configuration.providers import environ

    yield from os.environ
    directory = Path(environ.SECRET_STORAGE_PATH % "")
    if directory.is_dir():
        yield from (path.name.replace("-", "_").upper() for path in directory.iterdir())


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from error
    except tomllib.TOMLDecodeError as error:
        # The parser's message may quote the line, and the line may be a secret.
        where = re.search(r"\(at .*\)", str(error))
        raise ConfigError(
            f"{path}: not valid TOML {where.group() if where else ''}; correct the file"
        ) from error

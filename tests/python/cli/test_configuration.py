"""Configuration that is missing or wrong is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from loaders import errors
from loaders.errors import ConfigError
from loaders.settings.connection import Connection
from loaders.settings.target import load_target
from loaders.sources.connections import load_connection
from loaders.sources.gmail.options import GmailConfig
from loaders.warehouse.base import Warehouse
from loaders.warehouse.opening import open_warehouse
from tests.python.conftest import TARGET, Project

from .conftest import SECRET, configure, one_line, run_main


def test_several_connections_ask_for_a_choice(
    warehouse: Warehouse, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(project, '[sources.gmail.one]\naccess_token = "x"\n[sources.gmail.two]\n')
    code, _, err = run_main(capsys, "gmail")
    assert code == 2
    assert "one, two" in one_line(err)


@pytest.mark.parametrize(
    ("text", "line_number"),
    [
        pytest.param(f'[sources.gmail.one]\naccess_token = "{SECRET}\n', 2, id="open quote"),
        pytest.param(f"[sources.gmail.one]\naccess_token = {SECRET}\n", 2, id="no quotes"),
        pytest.param(f'[sources.gmail.one\naccess_token = "{SECRET}"\n', 1, id="open bracket"),
        pytest.param(f'access_token = "{SECRET}"\n{SECRET}', 2, id="cut off"),
    ],
)
def test_half_written_secrets_are_one_line_without_the_secret(
    warehouse: Warehouse,
    project: Project,
    capsys: pytest.CaptureFixture[str],
    text: str,
    line_number: int,
) -> None:
    configure(project, text)
    code, out, err = run_main(capsys, "gmail")
    assert code == 2
    line = one_line(err)
    assert str(project.dlt_dir / "secrets.toml") in line
    assert f"line {line_number}" in line or "end of document" in line
    assert SECRET[:12] not in out + err


def test_secrets_that_are_not_text_are_one_line(
    warehouse: Warehouse, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(project, "")
    (project.dlt_dir / "secrets.toml").write_bytes(b"\xff\xfe" + SECRET.encode("utf-16"))
    code, _, err = run_main(capsys, "gmail")
    assert code == 2
    assert "secrets.toml" in one_line(err)


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("workers", "many", "workers"),
        ("workers", "0", "workers"),
        ("fetch_format", "fast", "fetch_format"),
        ("timeout_seconds", "soon", "timeout_seconds"),
    ],
)
def test_a_wrong_connection_option_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch, option: str, value: str, named: str
) -> None:
    monkeypatch.setenv(f"SOURCES__GMAIL__ONE__{option.upper()}", value)
    with pytest.raises(ConfigError, match=f"sources.gmail.one.*{named}"):
        GmailConfig.from_connection(load_connection("gmail", None))


@pytest.mark.parametrize("command", ["gmail", "stripe", "check", "verify gmail"])
def test_generated_objects_get_into_production_only_when_asked_for(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.setenv("LANDFALL_BIGQUERY_METHOD", "service-account")
    monkeypatch.setenv("LANDFALL_BIGQUERY_KEYFILE", str(tmp_path / "missing.json"))
    code, out, err = run_main(capsys, *command.split(), "--target", "prod")
    assert (code, out) == (2, "")
    # That the warehouse cannot be used either is told, and is not what it ends with.
    *unlogged, error = err.splitlines()
    assert "no connection is configured" in error
    assert "--connection sandbox" in error
    assert all("missing.json" in line for line in unlogged)
    assert load_connection("gmail", "sandbox", open_warehouse(load_target("prod"))).is_sandbox


def test_a_secret_option_is_never_printed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "_known_secrets", set())
    monkeypatch.setenv("SOURCES__GMAIL__ONE__ACCESS_TOKEN", SECRET)
    assert Connection("gmail", "one").secret("access_token") == SECRET
    assert SECRET not in errors.describe(RuntimeError(f"refused {SECRET}"))


def test_missing_profiles_are_one_line(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.profiles.unlink()
    code, _, err = run_main(capsys, "status")
    assert code == 2
    assert "profiles.yml" in one_line(err)


@pytest.mark.parametrize(
    "text",
    ["", "landfall: [", "other: {outputs: {}}", "landfall: {target: dev}", "- 1", "landfall: 7"],
)
def test_broken_profiles_are_one_line(
    project: Project, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    project.profiles.write_text(text)
    code, _, err = run_main(capsys, "status")
    assert code == 2
    assert str(project.profiles) in one_line(err)


def test_an_unknown_target_names_the_known_ones(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_main(capsys, "status", "--target", "nowhere")
    assert code == 2
    line = one_line(err)
    assert "'nowhere'" in line
    assert TARGET in line


def test_an_unset_variable_of_the_profile_is_named(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = yaml.safe_load(project.profiles.read_text())
    profile["landfall"]["outputs"][TARGET]["path"] = "{{ env_var('LANDFALL_UNSET') }}"
    project.profiles.write_text(yaml.safe_dump(profile))
    code, _, err = run_main(capsys, "status")
    assert code == 2
    assert "LANDFALL_UNSET" in one_line(err)

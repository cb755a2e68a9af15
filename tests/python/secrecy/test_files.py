"""Files of secrets that others can read."""

from __future__ import annotations

import pytest
import yaml

from landfall_sandbox.controls import Sandbox
from tests.python.cli.conftest import run_main
from tests.python.conftest import Project
from tests.python.oauth_files import (
    write_json,
)

from .conftest import SECRET, fault

pytestmark = pytest.mark.usefixtures("own_secrets")


def warned(err: str) -> list[str]:
    return [line for line in err.splitlines() if "chmod 600" in line]


@pytest.mark.parametrize("command", ["gmail", "check"])
def test_a_file_of_secrets_that_others_can_read_is_one_line_with_the_fix(
    project: Project,
    apis: Sandbox,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    fault(apis, "*", {"status": 401})
    token = project.dlt_dir / "gmail.acct1.token.json"
    toml = project.dlt_dir / "secrets.toml"
    toml.write_text("")
    toml.chmod(0o640)
    token.chmod(0o604)
    arguments = (command, *(["gmail"] if command == "check" else []))
    [line] = warned(run_main(capsys, *arguments)[2])
    assert line.startswith("warning: ")
    assert line.endswith(f"chmod 600 {toml} {token}")
    toml.chmod(0o600)
    [line] = warned(run_main(capsys, *arguments)[2])
    assert line.endswith(f"chmod 600 {token}")
    token.chmod(0o600)
    assert warned(run_main(capsys, *arguments)[2]) == []


@pytest.mark.parametrize("name", ["refresh_token", "keyfile_json"])
def test_a_profile_that_holds_a_secret_is_a_file_of_secrets(
    project: Project,
    apis: Sandbox,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    fault(apis, "*", {"status": 401})
    project.profiles.chmod(0o644)
    profile = yaml.safe_load(project.profiles.read_text())
    output = profile["landfall"]["outputs"][project.target]
    output[name] = "{{ env_var('NAME_OF_A_SECRET', '') }}"
    project.profiles.write_text(yaml.safe_dump(profile))
    assert warned(run_main(capsys, "check", "gmail")[2]) == []
    output[name] = {"private_key": SECRET} if name == "keyfile_json" else SECRET
    project.profiles.write_text(yaml.safe_dump(profile))
    [line] = warned(run_main(capsys, "check", "gmail")[2])
    assert line.endswith(f"chmod 600 {project.profiles}")


def test_who_is_told_is_a_secret_too(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.dlt_dir.mkdir(exist_ok=True)
    toml = project.dlt_dir / "secrets.toml"
    toml.write_text('[alerts]\nurls = ["json://127.0.0.1:9/"]\n')
    toml.chmod(0o640)
    [line] = warned(run_main(capsys, "alert")[2])
    assert line == f"warning: others on this machine can read secrets of alerts: chmod 600 {toml}"


@pytest.mark.parametrize("option", ["token_file", "service_account_file", "keyfile"])
def test_a_key_file_s_mode_is_looked_at_wherever_it_is(
    project: Project,
    apis: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
) -> None:
    fault(apis, "*", {"status": 401})
    path = write_json(project.directory / "a key's file.json", {})
    path.chmod(0o644)
    if option == "keyfile":
        profile = yaml.safe_load(project.profiles.read_text())
        profile["landfall"]["outputs"][project.target]["keyfile"] = str(path)
        project.profiles.write_text(yaml.safe_dump(profile))
    else:
        monkeypatch.setenv(f"SOURCES__GMAIL__ACCT1__{option}".upper(), str(path))
    [line] = warned(run_main(capsys, "check", "gmail")[2])
    assert line.endswith(f"chmod 600 '{project.directory}/a key'\"'\"'s file.json'")

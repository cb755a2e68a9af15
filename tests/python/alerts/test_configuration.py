"""Where alerts go, and what is wrong with that."""

from __future__ import annotations

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import ConfigError
from loaders.monitoring.alerts import channels
from loaders.sources.check_lines import CheckLines
from tests.python.cli.conftest import one_line, run_main
from tests.python.conftest import Project

from .conftest import TOKEN, Receiver

pytestmark = pytest.mark.usefixtures("stays_open", "own_secrets")


def test_a_test_message_goes_to_each_channel(
    project: Project,
    receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALERTS__URLS", f"{receiver.url()} json://127.0.0.1:1/{TOKEN}")
    code, out, err = run_main(capsys, "alert", "--test")
    assert code == 1
    assert out.splitlines() == [
        "1 json: delivered",
        "2 json: NOT delivered: the service could not be reached",
    ]
    assert receiver.titles == ["a test"]
    assert receiver.posts[0]["type"] == "info"
    assert TOKEN not in out + err
    assert not project.duckdb_path.exists()
    monkeypatch.setenv("ALERTS__URLS", receiver.url())
    assert run_main(capsys, "alert", "--test")[0] == 0


def test_alerts_without_urls_are_wrong_usage(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["alert"], ["alert", "--test"]):
        code, _, err = run_main(capsys, *arguments)
        assert code == 2
        assert "ALERTS__URLS" in one_line(err)


@pytest.mark.parametrize(
    ("variables", "state", "said"),
    [
        ({}, "-", "alerts.urls is not configured"),
        ({"URLS": "json://127.0.0.1:1/x"}, "ok", "1 json"),
        ({"URLS": "nonsense://x"}, "FAILED", "1 nonsense: no service takes this URL"),
        ({"URLS": "json://x", "AFTER_FAILURES": "0"}, "FAILED", "after_failures"),
    ],
)
def test_check_says_whether_anybody_would_be_told(
    project: Project,
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    state: str,
    said: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"ALERTS__{name}", value)
    report = CheckLines()
    channels.check_channels(report)
    [line] = capsys.readouterr().out.splitlines()
    assert line.split()[:2] == ["alerts", state]
    assert said in line
    assert report.has_failed is (state == "FAILED")


@pytest.mark.parametrize("urls", ["[1]", "{}x [", '["json://x", ""]'])
def test_urls_that_are_no_list_of_urls_are_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch, urls: str
) -> None:
    monkeypatch.setenv("ALERTS__URLS", urls)
    if urls.startswith("{"):
        assert [each.label for each in channels.configured_channels()] == ["1 unknown", "2 unknown"]
        return
    with pytest.raises(ConfigError, match="expected a list of Apprise URLs"):
        channels.configured_channels()

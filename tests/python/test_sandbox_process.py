"""The sandbox's process: its size, its start and its end."""

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import httplib2
import pytest

import landfall_sandbox
from landfall_sandbox.controls import Sandbox, SandboxError
from landfall_sandbox.layout import SPAN_END_MS, SPAN_START_MS

ROOT = Path(__file__).resolve().parents[2]
PARENT = """
import time
from landfall_sandbox.controls import Sandbox
sandbox = Sandbox(size=5).start()
print(sandbox.pid, flush=True)
time.sleep(600)
"""


def fetch(sandbox: Sandbox, path: str) -> Any:
    response, content = httplib2.Http().request(
        f"{sandbox.base_url}/gmail/v1/users/me/{path}", headers={"Authorization": "Bearer any"}
    )
    assert response.status == 200
    return json.loads(content)


def test_a_million_messages_stay_quick_and_small() -> None:
    start = time.monotonic()
    with Sandbox(size=1_000_000, seed=3) as sandbox:
        first = fetch(sandbox, "messages?maxResults=500")
        assert len(first["messages"]) == 500
        assert first["resultSizeEstimate"] > 900_000
        middle = (SPAN_START_MS + SPAN_END_MS) // 2000
        page = fetch(sandbox, f"messages?maxResults=500&q=before:{middle}")
        following = fetch(sandbox, f"messages?maxResults=500&pageToken={page['nextPageToken']}")
        dates = [
            int(fetch(sandbox, f"messages/{each['messages'][0]['id']}")["internalDate"])
            for each in (first, page, following)
        ]
        assert dates[0] > middle * 1000 > dates[1] > dates[2]
        week = f"messages?maxResults=500&q=after:{middle}+before:{middle + 604_800}"
        assert len(fetch(sandbox, week)["messages"]) == 500
        assert fetch(sandbox, "labels/INBOX")["messagesTotal"] > 400_000
        assert resident_mb(sandbox.pid) < 80
    assert time.monotonic() - start < 8


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("no /proc to read the memory from")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's pidfd_open")
def test_the_server_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    server = os.pidfd_open(int(parent.stdout.readline()))
    assert not select.select([server], [], [], 0)[0]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    ended, _, _ = select.select([server], [], [], 10)
    os.close(server)
    parent.stdout.close()
    assert ended


def test_the_server_outlives_an_interrupt() -> None:
    with Sandbox(size=5) as sandbox:
        os.kill(sandbox.pid, signal.SIGINT)
        assert fetch(sandbox, "profile")["messagesTotal"] == 5


def test_a_server_that_cannot_start_says_so(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="ended while starting"):
        Sandbox(state=tmp_path / "missing" / "state.sqlite").start()


@pytest.mark.parametrize("path", ["stats", "live-ids", "stripe/objects?kind=charge"])
def test_a_server_without_controls_answers_as_an_api_does(path: str) -> None:
    with landfall_sandbox.Sandbox() as sandbox, pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{sandbox.base_url}/sandbox/{path}")
    with refused.value as answer:
        assert answer.code == 404
        assert json.loads(answer.read())["error"]["errors"][0]["reason"] == "notFound"

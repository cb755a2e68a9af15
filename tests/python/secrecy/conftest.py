"""What these tests have in common."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.settings.places import PROJECT_DIR
from loaders.warehouse.base import Warehouse
from tests.python.cli.conftest import run_main
from tests.python.conftest import Project
from tests.python.oauth_files import (
    token_info,
    write_json,
)

WORD = "cAn4ry77c1e0Secret"
"""In every secret; what stands around it differs."""


SECRET = f"1//{WORD}/a+b=c"


CONTENT = "cAn4ryDearDiary"
"""In every object."""


def forms(canary: str) -> list[bytes]:
    """The canary as it is, and inside base64 at each of the three offsets."""
    found = [canary.encode()]
    for offset in range(3):
        encoded = base64.b64encode(b"x" * offset + canary.encode())
        found.append(encoded[4 if offset else 0 : -4])
    return found


def leaks(texts: Mapping[str, bytes], *canaries: str) -> list[str]:
    """Names of the texts that hold a canary in any form."""
    needles = [form for canary in canaries for form in forms(canary)]
    return [name for name, text in texts.items() if any(needle in text for needle in needles)]


def files_below(*directories: Path) -> dict[str, bytes]:
    """What every file holds, its name included."""
    found = {}
    for directory in directories:
        for path in directory.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file():
                    found[str(path)] = str(path).encode() + b"\n" + path.read_bytes()
    return found


def tables(warehouse: Warehouse, *without: str) -> dict[str, bytes]:
    """Every row of every table, as text each, but for the columns named `table.column`."""
    found = {}
    for schema, table in warehouse.execute(
        "select table_schema, table_name from information_schema.tables"
        " where table_type = 'BASE TABLE'"
    ):
        left_out = [name.split(".")[1] for name in without if name.split(".")[0] == table]
        excluded = f"exclude ({', '.join(left_out)})" if left_out else ""
        rows = warehouse.execute(f'select * {excluded} from "{schema}"."{table}"')
        found[f"{schema}.{table}"] = json.dumps(rows, default=str).encode()
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    with Sandbox(size=4, charges=8, seed=7) as sandbox:
        subject = f"Subject: {CONTENT}\r\nFrom: {CONTENT} <{CONTENT}@example.com>\r\n\r\n"
        sandbox.insert(f"{subject}{CONTENT}\r\n".encode(), labels=["INBOX"])
        yield sandbox


@pytest.fixture
def apis(
    server: Sandbox,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Sandbox:
    """Both sources, a canary in each of their credentials, in addresses and in proxies."""
    server.set_faults([])
    server.settings(tokens_expired=False)
    token = token_info(
        server.base_url, SECRET, token=f"ya29.{WORD}", client_secret=f"GOCSPX-{WORD}"
    )
    write_json(project.dlt_dir / "gmail.acct1.token.json", token)
    options = {
        "GMAIL__ACCT1": {"api_base_url": server.base_url, "units_per_minute": 10**7},
        "STRIPE__ACCT1": {
            "api_key": f"rk_test_{WORD}",
            "api_base_url": server.base_url.replace("://", f"://user:{WORD}@"),
            "requests_per_second": 100_000,
            "endpoint_requests_per_second": 100_000,
        },
    }
    for section, values in options.items():
        for name, value in {**values, "max_attempts": 2, "backoff_seconds": 0.001}.items():
            monkeypatch.setenv(f"SOURCES__{section}__{name}".upper(), str(value))
    for name in ("https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://user:{WORD}@127.0.0.1:9")
    bypass_proxies(monkeypatch, "127.0.0.1")
    return server


def bypass_proxies(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, hosts)


class Canaries:
    """What the commands of a test have printed, and where a canary may not be."""

    def __init__(
        self, project: Project, warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.said: dict[str, bytes] = {}
        self._project = project
        self._warehouse = warehouse
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str]:
        """A command with every line that it can print."""
        formats = (("--debug", "--log-format", "json"), ("--debug",))
        more = formats[len(self.said) % 2]
        code, out, err = run_main(self._capsys, *arguments, *more)
        self.said[f"{len(self.said)} {' '.join(arguments)}: {code}"] = f"{out}\n{err}".encode()
        print(out, err)
        return code, out + err

    def assert_nowhere(self) -> None:
        project = self._project
        assert leaks(self.said, WORD, CONTENT) == []
        directories = (project.state_dir, PROJECT_DIR / "target" / project.target)
        local = files_below(*directories)
        assert any("dbt.log" in name for name in local)
        assert any("pipelines" in name for name in local)
        assert leaks(local, WORD, CONTENT) == []
        # Objects and the letters of what was refused hold content, in that column alone.
        columns = ("raw_objects.payload", "landed_objects.payload", "dead_letters.payload")
        assert leaks(tables(self._warehouse, *columns), WORD, CONTENT) == []
        # Of the secrets not even in rows that were deleted.
        assert leaks(files_below(project.duckdb_path.parent), WORD) == []


@pytest.fixture
def canaries(
    project: Project, warehouse: Warehouse, apis: Sandbox, capsys: pytest.CaptureFixture[str]
) -> Canaries:
    return Canaries(project, warehouse, capsys)


def fault(server: Sandbox, method: str, action: dict[str, Any]) -> None:
    """The token endpoint, asked again after a 401, knows of no mail."""
    no_mail = json.loads(json.dumps(action).replace(CONTENT, ""))
    server.set_faults(
        [
            {"match": {"method": each}, "action": answer, "times": None}
            for each, answer in (("token", no_mail), (method, action))
            if method in ("*", each)
        ]
    )

"""What these tests have in common."""

from __future__ import annotations

import pytest

from loaders.cli import main
from tests.python.conftest import Project

SECRET = "canary-secret-5e1d-do-not-print"


def run_main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The command line in this process: (exit code, stdout, stderr)."""
    try:
        code = main.main(arguments)
    except SystemExit as done:
        code = int(done.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def one_line(text: str) -> str:
    """The only line of an error output."""
    [line] = text.strip().splitlines()
    assert "Traceback" not in text
    return line


def configure(project: Project, text: str, name: str = "secrets.toml") -> None:
    project.dlt_dir.mkdir(exist_ok=True)
    (project.dlt_dir / name).write_text(text)

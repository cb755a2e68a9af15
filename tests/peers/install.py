"""Installs the peers, each in an environment of its own below .peers/.

Run as `python -m tests.peers.install`; it does nothing for what is there already.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PEERS = Path(__file__).resolve().parents[2] / ".peers"

EMULATOR_PYTHON = "3.13"
EMULATOR_PACKAGES = (
    "local-bigquery==0.4.0",
    "duckdb==1.5.5",
    "duckdb-extension-ducklake==1.5.5",
    "duckdb-extension-spatial==1.5.5",
    "sqlglot==30.30.0",
    "pyarrow==26.0.1",
)
# local-bigquery asks for an older DuckDB, whose extensions no package carries.
EMULATOR_OVERRIDES = ("duckdb==1.5.5",)
# DuckDB downloads extensions when it needs them; these come from their packages instead.
_INSTALL_EXTENSIONS = """
import duckdb, pathlib, site
for path in pathlib.Path(site.getsitepackages()[0]).glob(
    "duckdb_extension_*/**/*.duckdb_extension"
):
    duckdb.connect().execute(f"install '{path}'")
"""
ANALYZER_NODE_PACKAGE = "@fivetrandevelopers/zetasql@1.13.0"
EMULATE_NODE_PACKAGE = "emulate@0.11.2"
ANALYZER_PACKAGES = ("zetasql==0.1.5", "grpcio==1.85.1", "protobuf==7.36.2")
STRIPE_WORLD_PYTHON = "3.13"
# Written for Python 3.14 and installed as if it were that, which is why their dependencies are
# named here; stripe_world_server.py makes them run.
STRIPE_WORLD_PACKAGES = ("seahaven-stripe-world==0.3.0", "seahaven==0.6.0")
STRIPE_WORLD_DEPENDENCIES = (
    "apsw==3.54.1.0",
    "pydantic==2.14.4",
    "pyyaml==6.0.4",
    "starlette==1.10.0",
    "uvicorn==0.54.0",
    # and what these five ask for
    "annotated-types==0.8.0",
    "anyio==4.16.0",
    "click==8.5.1",
    "h11==0.16.0",
    "idna==3.20",
    "pydantic-core==2.50.5",
    "typing-extensions==4.16.0",
    "typing-inspection==0.4.5",
)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let one process install at a time: the workers of a test run all want the same peers."""
    PEERS.mkdir(exist_ok=True)
    with (PEERS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class PeerUnavailable(Exception):
    """A peer needs something that this machine lacks; the message says what."""


@alone()
def emulator_python() -> Path:
    """Interpreter of the BigQuery emulator's environment, installed when missing.

    Raises PeerUnavailable without Python 3.13.
    """
    environment = PEERS / "emulator"
    python = environment / "bin" / "python"
    if not (environment / ".complete").exists():
        new_environment(environment, find_python(EMULATOR_PYTHON, "the BigQuery emulator"))
        overrides = environment / "overrides.txt"
        overrides.write_text("\n".join(EMULATOR_OVERRIDES))
        run_uv("pip", "install", "--python", python, "--override", overrides, *EMULATOR_PACKAGES)
        subprocess.run([python, "-c", _INSTALL_EXTENSIONS], check=True)
        (environment / ".complete").touch()
    return python


@alone()
def stripe_world_python() -> Path:
    """Interpreter with `seahaven-stripe-world`. Raises PeerUnavailable without Python 3.13."""
    environment = PEERS / "stripe-world"
    python = environment / "bin" / "python"
    if not (environment / ".complete").exists():
        wanted_by = "seahaven-stripe-world, the other stand-in of the Stripe API,"
        new_environment(environment, find_python(STRIPE_WORLD_PYTHON, wanted_by))
        install = ("pip", "install", "--python", python, "--no-deps")
        run_uv(*install, *STRIPE_WORLD_DEPENDENCIES)
        run_uv(*install, "--python-version", "3.14", *STRIPE_WORLD_PACKAGES)
        (environment / ".complete").touch()
    return python


@alone()
def analyzer_python() -> Path:
    """Interpreter with the classes that speak to GoogleSQL's analyzer."""
    environment = PEERS / "analyzer"
    python = environment / "bin" / "python"
    if not (environment / ".complete").exists():
        new_environment(environment, Path(sys.executable))
        run_uv("pip", "install", "--python", python, *ANALYZER_PACKAGES)
        (environment / ".complete").touch()
    return python


@alone()
def analyzer_server() -> Path:
    """GoogleSQL's analyzer as a program. Raises PeerUnavailable without npm."""
    folder = PEERS / "analyzer-server"
    name = "remote_server_arm.so" if _is_arm() else "remote_server.so"
    server = folder / "node_modules/@fivetrandevelopers/zetasql/lib/zetasql" / name
    if not server.exists():
        _npm_install(folder, ANALYZER_NODE_PACKAGE)
    server.chmod(0o755)
    return server


@alone()
def emulate_command() -> list[str]:
    """How to run `emulate`. Raises PeerUnavailable without Node."""
    node = shutil.which("node")
    if node is None:
        raise PeerUnavailable("emulate, the other stand-in of the Gmail API, needs Node")
    folder = PEERS / "emulate"
    script = folder / "node_modules/emulate/dist/index.js"
    if not script.exists():
        _npm_install(folder, EMULATE_NODE_PACKAGE)
    return [node, str(script)]


def _npm_install(folder: Path, package: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise PeerUnavailable(f"{package} comes from npm, which is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--silent", "--no-save", "--prefix", str(folder), package]
    result = subprocess.run(command, text=True, capture_output=True, check=False)
    if result.returncode:
        raise PeerUnavailable(f"npm install {package} failed: {result.stderr.strip()[-500:]}")


def _is_arm() -> bool:
    import platform

    return platform.machine() in ("aarch64", "arm64")


def find_python(version: str, wanted_by: str) -> Path:
    """An interpreter of that version, on the PATH or among pyenv's.

    pyenv's own command on the PATH works only where that version is switched on.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = shutil.which(f"python{version}")
    candidates = [Path(on_path)] if on_path else []
    for python in [*candidates, *sorted(pyenv.glob(f"{version}*/bin/python"))]:
        command = [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return python
    raise PeerUnavailable(f"{wanted_by} needs Python {version}, which is not installed")


def new_environment(environment: Path, python: Path) -> None:
    shutil.rmtree(environment, ignore_errors=True)
    run_uv("venv", "--python", python, environment)


def run_uv(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    uv = Path(sys.executable).parent / "uv"
    command = [str(uv if uv.exists() else "uv"), "--quiet", *map(str, arguments)]
    result = subprocess.run(command, text=True, capture_output=True, check=False)
    if check and result.returncode:
        raise PeerUnavailable(f"{' '.join(command[2:5])} failed: {result.stderr.strip()[-500:]}")
    return result


if __name__ == "__main__":
    pythons = (emulator_python(), analyzer_python(), stripe_world_python())
    print(*pythons, analyzer_server(), *emulate_command(), sep="\n")

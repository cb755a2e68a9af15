"""GoogleSQL's own analyzer as the judge of the SQL that is sent to BigQuery."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.peers.install import analyzer_python, analyzer_server
from tests.peers.servers import free_port

_WAIT_SECONDS = 20


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the analyzer says of one statement; `error` is None when it accepts it."""

    statement: str
    error: str | None
    skipped: bool = False


class Analyzer:
    """A running analyzer; what the statements create, later ones may use."""

    def __init__(self, client: subprocess.Popen[str]) -> None:
        self._client = client

    def judge(self, jobs: Iterable[Mapping[str, Any]]) -> list[Verdict]:
        """Analyze query jobs in the order they were sent.

        Raises RuntimeError when the analyzer itself breaks.
        """
        return [verdict for job in jobs for verdict in self._judge_one(job)]

    def evaluate(self, expression: str) -> str | None:
        """The text that GoogleSQL's own evaluator makes of an expression; None for NULL.

        Raises RuntimeError when it cannot.
        """
        value: str | None = json.loads(self._ask({"expression": expression}))
        return value

    def _judge_one(self, job: Mapping[str, Any]) -> list[Verdict]:
        return [Verdict(**each) for each in json.loads(self._ask(job))]

    def _ask(self, job: Mapping[str, Any]) -> str:
        assert self._client.stdin
        assert self._client.stdout
        with contextlib.suppress(BrokenPipeError):
            self._client.stdin.write(json.dumps(job) + "\n")
            self._client.stdin.flush()
        answer = self._client.stdout.readline()
        if not answer:
            raise RuntimeError(f"GoogleSQL's analyzer broke at {job}; its words are on stderr")
        return answer


@contextlib.contextmanager
def run_analyzer() -> Iterator[Analyzer]:
    """Start the analyzer. Raises PeerUnavailable."""
    port = str(free_port())
    script = Path(__file__).with_name("analyze.py")
    with contextlib.ExitStack() as started:
        started.enter_context(
            _running([analyzer_server(), "localhost", port], stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL)
        )  # fmt: skip
        client = started.enter_context(
            _running([analyzer_python(), script, port], text=True, stdin=subprocess.PIPE,
                     stdout=subprocess.PIPE)
        )  # fmt: skip
        yield Analyzer(client)


def judge(jobs: Iterable[Mapping[str, Any]]) -> list[Verdict]:
    """Verdicts of an analyzer that knows nothing but these jobs. Raises PeerUnavailable."""
    with run_analyzer() as analyzer:
        return analyzer.judge(jobs)


@contextlib.contextmanager
def _running(command: list[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=_WAIT_SECONDS)

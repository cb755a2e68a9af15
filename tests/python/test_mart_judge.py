"""Every column of every mart on Gmail's and Stripe's objects, against the payloads."""

from __future__ import annotations

import contextlib
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from landfall_sandbox.controls import Sandbox
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.settings.places import PROJECT_DIR
from loaders.sources.gmail.options import FORMATS
from loaders.warehouse.base import Warehouse
from tests.peers.emulate import run_emulate
from tests.peers.gmail_stand_ins import EmulateMailbox
from tests.peers.install import PeerUnavailable
from tests.peers.missing import unavailable
from tests.peers.stripe_stand_ins import KINDS, accounts
from tests.peers.stripe_world import run_stripe_world

from .conftest import Project, gmail_source, on_both_targets, run_ingestion, run_stripe
from .mart_cases import CASES, NOW
from .mart_columns import MARTS
from .mart_judge import judge, store

MAIL = b"Subject: plain\r\nTo: bob@example.com\r\n\r\nbody\r\n"
MAIL_WITH_A_FILE = b"""Subject: with a file\r
Content-Type: multipart/mixed; boundary=b\r
\r
--b\r
Content-Type: text/plain\r
\r
text\r
--b\r
Content-Type: text/plain; name=a.txt\r
Content-Disposition: attachment; filename=a.txt\r
\r
file\r
--b--\r
"""


def turned(value: Any) -> Any:
    """The same payload, each id of an object expanded, and each object that is but an id not."""
    if isinstance(value, dict):
        if value.keys() == {"id"}:
            return value["id"]
        return {key: each if key == "id" else turned(each) for key, each in value.items()}
    if isinstance(value, list):
        return [turned(each) for each in value]
    return {"id": value} if re.fullmatch(r"[a-z]+_\d", str(value)) else value


def answer(url: str, token: str) -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read())


def build(project: Project) -> None:
    result = project.run_dbt("run", "--select", "tag:gmail", "tag:stripe")
    assert result.success, result.exception


def columns_of_marts() -> Iterator[str]:
    """`mart.column` of all that the YAML files describe."""
    for folder in ("gmail", "stripe"):
        path = Path(PROJECT_DIR, "models", "marts", folder, "_models.yml")
        for model in yaml.safe_load(path.read_text())["models"]:
            yield from (f"{model['name']}.{column['name']}" for column in model["columns"])


@contextlib.contextmanager
def peer(running: contextlib.AbstractContextManager[str]) -> Iterator[str]:
    """Where a stand-in that somebody else wrote answers."""
    try:
        with running as url:
            yield url
    except PeerUnavailable as error:
        unavailable(error)


def test_every_column_of_every_mart_has_a_judge() -> None:
    judged = {f"{mart}.{column}" for mart, (_, _, columns) in MARTS.items() for column in columns}
    assert judged == set(columns_of_marts())


@on_both_targets
@pytest.mark.slow
def test_marts_say_what_hand_written_payloads_say(project: Project, warehouse: Warehouse) -> None:
    for mart, (source_system, object_type, _) in MARTS.items():
        # A line is `<invoice id>:<line id>`.
        prefix = "in_1:il_" if mart == "stripe_invoice_lines" else object_type[:2]
        payloads = CASES[object_type] + [turned(each) for each in CASES[object_type]]
        named = ((f"{prefix}{n}", each) for n, each in enumerate(payloads))
        store(warehouse, source_system, object_type, named)
    build(project)
    wrong, valued = judge(warehouse)
    assert not wrong, "\n".join(wrong)
    # A column without a value anywhere would be right whatever it read.
    assert valued == set(columns_of_marts())


@pytest.mark.slow
def test_marts_say_what_the_sandbox_sent(
    project: Project, warehouse: Warehouse, sandbox: Sandbox, merge_only: None
) -> None:
    assert run_stripe(warehouse, sandbox).error is None
    for fetch_format in FORMATS:

        def source(fetch_format: str = fetch_format) -> Any:
            return gmail_source(sandbox, fetch_format, fetch_format=fetch_format)

        run = run_ingestion(
            Ingestion(
                warehouse,
                source,
                source_system="gmail",
                connection_name=fetch_format,
                options=IngestOptions(),
            )
        )
        assert run.error is None
    build(project)
    wrong, _ = judge(warehouse)
    assert not wrong, "\n".join(wrong)
    counts = warehouse.execute(
        "select connection_name, count(*), count(subject), count(has_attachments)"
        f" from {warehouse.table('gmail_messages')} group by 1 order by 1"
    )
    assert [name for name, *_ in counts] == sorted(FORMATS)
    # What a format does not bring is unknown, not absent.
    known = {name: (subjects > 0, attachments) for name, _, subjects, attachments in counts}
    total = counts[0][1]
    assert known == {"full": (True, total), "metadata": (True, 0), "raw": (False, 0)}


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first one may have to install them
def test_marts_say_what_stand_ins_of_others_sent(
    project: Project, warehouse: Warehouse, tmp_path: Path
) -> None:
    with peer(run_stripe_world(tmp_path)) as url:
        account = next(accounts(url))
        # It pays out only what was earned two days before.
        for kind in (kind for kind in KINDS if kind != "payout"):
            account.create(kind)
        for kind in KINDS:
            found = answer(f"{account.url}/v1/{kind}s", account.key)["data"]
            store(warehouse, "stripe", kind, ((each["id"], each) for each in found))
            for lines in (each["lines"]["data"] for each in found if kind == "invoice"):
                named = ((f"{each['invoice']}:{each['id']}", each) for each in lines)
                store(warehouse, "stripe", "invoice_line", named)
    with peer(run_emulate(tmp_path, EmulateMailbox.seed(1))) as url:
        box = EmulateMailbox.of_number(url, 0)
        for raw in (MAIL, MAIL_WITH_A_FILE):
            message_id = box.deliver(raw, NOW * 1000)
            for name in FORMATS:
                message = answer(
                    f"{url}/gmail/v1/users/me/messages/{message_id}?format={name}", box.token
                )
                store(warehouse, "gmail", "message", [(f"{message_id}-{name}", message)])
    build(project)
    wrong, valued = judge(warehouse)
    assert not wrong, "\n".join(wrong)
    assert {"gmail_messages.has_attachments", "stripe_invoice_lines.price_id"} <= valued

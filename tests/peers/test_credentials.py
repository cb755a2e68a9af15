"""Whoever the dbt target says runs, for dbt, dlt and the job log; and with the least rights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from loaders.objects.idem_keys import stripe_idem_key
from loaders.settings.target import load_target
from loaders.transform import bootstrap
from loaders.upsert import upsert_objects
from loaders.warehouse.bigquery import BigQueryWarehouse
from loaders.warehouse.opening import open_warehouse
from tests.peers.emulator import PROJECT, Emulator

pytestmark = pytest.mark.slow


def write_key(path: Path, emulator: Emulator) -> Path:
    """The key file of a service account whose tokens the emulator gives out."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "1",
        "private_key": key.decode(),
        "client_email": f"landfall@{PROJECT}.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": f"{emulator.url}/token",
    }
    path.write_text(json.dumps(account))
    return path


def test_datasets_that_are_there_are_not_made_again(
    emulator: Emulator, own_datasets: Callable[[str], BigQueryWarehouse]
) -> None:
    """To make one takes a permission on the project, even when it is there."""
    warehouse = own_datasets("made_before")
    for dataset in ("made_before", "made_before_staging"):
        warehouse.execute(f"create schema {dataset}")
    position = emulator.jobs_since(0)[1]
    bootstrap.bootstrap(warehouse)
    sent = [job["query"]["query"].lower() for job in emulator.jobs_since(position)[0]]
    assert any("create table" in each for each in sent)
    assert not any("create schema" in each for each in sent)


def test_a_service_accounts_key_file_lands_and_merges(
    emulator: Emulator,
    own_datasets: Callable[[str], BigQueryWarehouse],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own_datasets("key_file")
    profile = yaml.safe_load(Path("profiles.example.yml").read_text())
    settings = profile["landfall"]["outputs"]["emulator"]
    settings.pop("token")
    keyfile = str(write_key(tmp_path / "key.json", emulator))
    settings.update(method="service-account", keyfile=keyfile)
    (tmp_path / "profiles.yml").write_text(yaml.safe_dump(profile))
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))
    result = upsert_objects(
        [{"id": "ch_1", "amount": 1200}],
        source_system="stripe",
        connection_name="acct1",
        object_type="charge",
        idem_key_fn=stripe_idem_key("acct1", "charge"),
        warehouse=open_warehouse(load_target("emulator")),
    )
    assert result.counts["inserted"] == 1

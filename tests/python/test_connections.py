"""Which connection a command takes: lost configuration never becomes generated objects."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from loaders.errors import LandfallError
from loaders.objects.idem_keys import idem_key
from loaders.settings.connection import Connection
from loaders.settings.places import PROJECT_DIR
from loaders.sources.connections import load_connection, load_connections
from loaders.sources.gmail import options as gmail_options
from loaders.sources.stripe.options import OPTIONS as STRIPE_OPTIONS
from loaders.sources.stripe.options import StripeConfig
from loaders.upsert import upsert_objects
from loaders.warehouse.base import Warehouse

from .cli.conftest import configure, one_line, run_main
from .conftest import STRIPE_KEY, Project, events, on_both_targets

CANARY = "canary-value-5e1d"
MISTAKES = {
    "section": ("[source.gmail.acct1]", "token_file", "[sources.gmail.acct1]"),
    "section, other letters": ("[soruces.gmail.acct1]", "token_file", "[sources.gmail.acct1]"),
    "section, capitals": ("[Sources.gmail.acct1]", "token_file", "[sources.gmail.acct1]"),
    "section left out": ("[gmail.acct1]", "token_file", "[sources.gmail.acct1]"),
    "source": ("[sources.gmial.acct1]", "token_file", "[sources.gmail.acct1]"),
    "source, capitals": ("[sources.Stripe.acct1]", "api_key", "[sources.stripe.acct1]"),
    "source with the name": ("[sources.gmail_acct1]", "token_file", "[sources.gmail.NAME]"),
    "no name": ("[sources.stripe]", "api_key", "[sources.stripe.NAME] api_key"),
    "no name, misspelt": ("[sources.stripe]", "api_kye", "[sources.stripe.NAME] api_key"),
    "option": ("[sources.stripe.acct1]", "api_kye", "[sources.stripe.acct1] api_key"),
    "option, capitals": ("[sources.stripe.acct1]", "API_KEY", "[sources.stripe.acct1] api_key"),
    "option of another": ("[sources.stripe.acct1]", "token_file", "an option of stripe"),
    "too deep": ("[sources.gmail.team.acct1]", "token_file", "options in [sources.gmail.team]"),
}  # fmt: skip
VARIABLES = {
    "section": ("SOURCE__GMAIL__ACCT1__TOKEN_FILE", "SOURCES__GMAIL__ACCT1__TOKEN_FILE"),
    "source": ("SOURCES__STRIP__ACCT1__API_KEY", "SOURCES__STRIPE__ACCT1__API_KEY"),
    "no name": ("SOURCES__STRIPE__API_KEY", "SOURCES__STRIPE__NAME__API_KEY"),
    "option": ("SOURCES__STRIPE__ACCT1__API_KYE", "SOURCES__STRIPE__ACCT1__API_KEY"),
    "too deep": ("SOURCES__STRIPE__ACCT1__API__KEY", "SOURCES__STRIPE__ACCT1__API_KEY"),
    "one underscore": ("SOURCES_GMAIL_ACCT1_TOKEN_FILE", "SOURCES__GMAIL__NAME__OPTION"),
    "lower case": ("sources__gmail__acct1__subject", "SOURCES__GMAIL__ACCT1__SUBJECT"),
}  # fmt: skip


def refusal(source: str, warehouse: Warehouse | None = None, *names: str) -> str:
    """The error that choosing a connection ends with."""
    with pytest.raises(LandfallError) as refused:
        load_connections(source, names, warehouse)
    assert refused.value.exit_code == 2
    assert CANARY not in str(refused.value)
    return str(refused.value)


def add(project: Project, text: str, name: str = "secrets.toml") -> None:
    configure(project, f"{text}\n", name)


GOOD = '[sources.gmail.good]\naccess_token = "any-token"\n'


@pytest.mark.parametrize("beside", ["", GOOD], ids=["alone", "beside a good one"])
@pytest.mark.parametrize(("section", "option", "expected"), MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("file", ["config.toml", "secrets.toml"])
def test_what_is_not_understood_in_a_file_is_refused_by_name(
    project: Project, section: str, option: str, expected: str, beside: str, file: str
) -> None:
    add(project, f'{beside}{section}\n{option} = "{CANARY}"\n', file)
    for source in ("gmail", "stripe"):
        said = refusal(source)
        assert section in said
        assert f".dlt/{file}" in said
        assert f"expected {expected}" in said
    assert "expected" in refusal("gmail", None, "good")
    assert load_connection("gmail", "sandbox") == Connection("gmail", "sandbox")


@pytest.mark.parametrize("beside", ["", "any-token"], ids=["alone", "beside a good one"])
@pytest.mark.parametrize(("variable", "expected"), VARIABLES.values(), ids=VARIABLES)
def test_a_variable_that_is_not_understood_is_refused_by_name(
    project: Project, monkeypatch: pytest.MonkeyPatch, variable: str, expected: str, beside: str
) -> None:
    monkeypatch.setenv(variable, CANARY)
    if beside:
        monkeypatch.setenv("SOURCES__GMAIL__GOOD__ACCESS_TOKEN", beside)
    said = refusal("gmail")
    assert f"{variable}: expected {expected}" in said


@pytest.mark.parametrize("command", ["gmail", "gmail --all", "stripe", "check", "verify gmail"])
def test_every_command_says_what_is_not_understood(
    warehouse: Warehouse, project: Project, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    add(project, f'[source.gmail.acct1]\ntoken_file = "{CANARY}"')
    code, out, err = run_main(capsys, *command.split())
    assert (code, out) == (2, "")
    assert "[source.gmail.acct1]" in one_line(err)
    assert all(each["connection_name"] is None for each in events(warehouse))


def test_a_secret_that_a_container_mounts_is_a_connection(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = project.directory / "run-secrets"
    mounted.mkdir()
    monkeypatch.setattr(
        "dlt.common.configuration.providers.environ.SECRET_STORAGE_PATH", f"{mounted}/%s"
    )
    (mounted / "sources--stripe--acct1--api-key").write_text(STRIPE_KEY)
    assert load_connection("stripe", None).secret("api_key") == STRIPE_KEY
    (mounted / "sources--stripe--api-key").write_text(STRIPE_KEY)
    assert "SOURCES__STRIPE__NAME__API_KEY" in refusal("stripe")


def with_provider(document: dict[str, object]) -> Callable[[], None]:
    """Register a provider of dlt's, and return what removes it again."""
    import dlt
    from dlt.common.configuration.container import Container
    from dlt.common.configuration.providers import CustomLoaderDocProvider
    from dlt.common.configuration.specs import PluggableRunContext

    provider = CustomLoaderDocProvider("vault", lambda: document)
    dlt.config.register_provider(provider)
    return lambda: Container()[PluggableRunContext].providers.providers.remove(provider)


@pytest.mark.parametrize(
    ("below", "expected"),
    [
        ({"acct1": {"api_key": STRIPE_KEY}}, None),
        ({"api_key": STRIPE_KEY}, "[sources.stripe.NAME]"),
    ],
)
def test_what_another_provider_lists_is_read_too(
    project: Project, below: dict[str, object], expected: str | None
) -> None:
    remove = with_provider({"sources": {"stripe": below}})
    try:
        if expected is None:
            assert load_connection("stripe", None).name == "acct1"
        else:
            said = refusal("stripe")
            assert f"[sources.stripe] api_key in vault: expected {expected}" in said
    finally:
        remove()


def test_dlt_s_own_sections_are_left_to_dlt(project: Project) -> None:
    own = ("[sources.data_writer]", "[sources.schema]", "[sources.gmail.extract]")
    add(project, "\n".join(f"{section}\nvalue = 1" for section in own), "config.toml")
    assert load_connection("gmail", None).is_sandbox
    add(project, GOOD)
    assert load_connection("gmail", None).name == "good"


def test_a_source_of_another_job_is_named_and_stands_for_no_sandbox(
    warehouse: Warehouse, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    add(project, f'[sources.hubspot]\napi_key = "{CANARY}"')
    assert "[sources.hubspot] in" in refusal("gmail", warehouse)
    add(project, f'[sources.hubspot]\napi_key = "{CANARY}"\n{GOOD}')
    assert load_connection("gmail", None, warehouse).name == "good"
    assert "not read: [sources.hubspot] in" in caplog.text
    assert CANARY not in caplog.text


def test_a_variable_names_the_connection_of_a_file_whatever_its_case(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(project, "[sources.gmail.Ann]\n[sources.gmail.sandbox]\nworkers = 2")
    monkeypatch.setenv("SOURCES__GMAIL__ANN__WORKERS", "3")
    assert [each.name for each in load_connections("gmail", None, everything=True)] == ["Ann"]


def test_a_section_without_credentials_is_no_sandbox(
    warehouse: Warehouse, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    add(project, "[sources.stripe.acct1]", "config.toml")
    code, _, err = run_main(capsys, "stripe")
    assert code == 2
    assert "sources.stripe.acct1.api_key: not set" in one_line(err)
    code, out, _ = run_main(capsys, "check", "stripe")
    assert code == 1
    assert "sources.stripe.acct1.api_key: not set" in out


# ---- what the warehouse says


def upsert(warehouse: Warehouse, source: str, connection: str, *, merge: bool) -> None:
    upsert_objects(
        [{"id": "1"}],
        source_system=source,
        connection_name=connection,
        object_type="thing",
        idem_key_fn=lambda each: idem_key(source, connection, "thing", each["id"]),
        merge=merge,
        correlation_id=None if merge else "another-job",
        warehouse=warehouse,
    )


@on_both_targets
@pytest.mark.parametrize(
    ("source", "connection"), [("gmail", "acct1"), ("acme", "main"), ("acme", "sandbox")]
)
def test_the_sandbox_is_not_put_beside_other_objects_unasked(
    warehouse: Warehouse, source: str, connection: str
) -> None:
    assert load_connection("gmail", None, warehouse).is_sandbox
    upsert(warehouse, "gmail", "sandbox", merge=False)
    assert load_connection("stripe", None, warehouse).is_sandbox
    upsert(warehouse, source, connection, merge=False)
    said = refusal("stripe", warehouse)
    assert f"holds {source}.{connection};" in said
    assert "[sources.stripe.NAME]" in said
    assert "--connection sandbox" in said
    assert load_connection("stripe", "sandbox", warehouse).is_sandbox


@on_both_targets
def test_a_run_without_an_object_counts_as_others(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    warehouse.execute(
        f"insert into {warehouse.table('event_log')} (event_id, event_type, source_system,"
        " connection_name, correlation_id, created_at, status) values ('1', 'job.started',"
        " 'stripe', 'main', 'r', cast('2026-01-01 00:00:00+00' as timestamp), 'ok')"
    )
    before = events(warehouse)
    for command in ("gmail --dry-run", "check", "verify gmail"):
        code, out, err = run_main(capsys, *command.split())
        assert (code, out) == (2, "")
        assert "stripe.main" in one_line(err)
    assert events(warehouse) == before
    assert run_main(capsys, "gmail")[0] == 2
    assert [each["event_type"] for each in events(warehouse)[1:]] == ["job.started", "job.failed"]


def test_a_connection_of_the_other_source_is_a_real_one(
    warehouse: Warehouse, project: Project
) -> None:
    add(project, GOOD)
    assert "beside those of gmail.good" in refusal("stripe", warehouse)


def test_all_connections_of_none_is_no_sandbox(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("gmail", "stripe"):
        code, _, err = run_main(capsys, command, "--all")
        assert code == 2
        assert "no connection is configured, and --all is about those alone" in one_line(err)


@pytest.mark.parametrize(
    ("source", "variable"),
    [("gmail", "GOOGLE_APPLICATION_CREDENTIALS"), ("stripe", "STRIPE_API_KEY")],
)
def test_a_variable_of_other_programs_is_said_not_to_be_read(
    warehouse: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    source: str,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, CANARY)
    assert load_connection(source, None, warehouse).is_sandbox
    [line] = caplog.messages
    assert f"{variable}: set, and not read" in line
    assert f"[sources.{source}.NAME]" in line
    assert CANARY not in line
    upsert(warehouse, "acme", "main", merge=False)
    assert f"({variable}: set, and not read)" in refusal(source, warehouse)


@pytest.mark.parametrize("kind", ["file", "home"])
def test_dlt_s_other_files_are_read(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """The user's own, for all projects, and those of a settings folder of another name."""
    if kind == "file":
        monkeypatch.setenv("DLT_CONFIG_FOLDER", ".settings")
        folder = project.directory / ".settings"
        folder.mkdir()
    else:
        import dlt

        toml = dlt.config.config_providers[1]
        monkeypatch.setattr(toml, "_locations", [*toml.locations, str(tmp_path / "secrets.toml")])
        folder = tmp_path
    (folder / "secrets.toml").write_text(GOOD)
    assert load_connection("gmail", None).name == "good"


def test_every_option_that_the_code_reads_is_known() -> None:
    known = set(gmail_options.OPTIONS)
    sources = PROJECT_DIR / "loaders" / "sources"
    files = [*sources.glob("google_*.py"), *sources.glob("*/*.py")]
    code = "".join(path.read_text() for path in files)
    read = set(re.findall(r"connection\.(?:get|secret)\(\"(\w+)\"\)", code))
    assert read
    assert read <= known
    assert {field.name for field in dataclasses.fields(StripeConfig)} <= set(STRIPE_OPTIONS)

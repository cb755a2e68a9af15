"""What the warehouse quotes of objects and of statements stays out of every message."""

from __future__ import annotations

import json

import pytest

from loaders.errors import LONGEST_TEXT, UsageError, WarehouseError, redact, without_content
from loaders.upkeep.erasing import Erasure, Selection
from loaders.warehouse.base import Warehouse

from .cli.conftest import one_line, run_main

CANARY = "cAn4ryDearDiary"
NUMBER = 7654321987654321
PAYLOAD = {"t": f"mail {CANARY}", "n": NUMBER, "a": [1, CANARY], "s": {"x": CANARY}}
TEXT = "json_extract_string(payload, '$.t')"
COUNT = "cast(json_extract_string(payload, '$.n') as bigint)"
TYPES = (
    "date timestamp timestamptz timestamp_ns time timetz tinyint integer bigint hugeint"
    " double float decimal(9,2) boolean uuid interval int[] int[2] varchar[] struct(a_int)"
    " map(varchar,int) json"
)
CONDITIONS = (
    # a cast, of a text and of JSON
    *(f"cast({TEXT} as {name.replace('_int', ' int')}) is null" for name in TYPES.split()),
    *(
        f"cast(payload as {name}) is null"
        for name in ("int", "date", "uuid", "int[]", "decimal(3,1)", "struct(z int)", "interval")
    ),
    "cast(payload->'$.t' as int) = 1",
    "cast(payload->'$.s' as struct(x int)) is null",
    "cast(payload->'$.a' as int[]) is null",
    "payload = 1",
    f"{TEXT} = 5",
    f"[{TEXT}]::int[] is null",
    f"{{'a': {TEXT}}}::struct(a int) is null",
    f"try_cast({TEXT} as int) is null and {TEXT}::boolean",
    # JSON
    f"json_extract({TEXT}, '$.x') is null",
    f"json_keys({TEXT}) is null",
    f"json_extract(payload, '$[' || {TEXT}) is null",
    f"json_extract(payload, '$[{CANARY}') is null",
    """json_transform_strict(payload, '{"t": "INT"}') is null""",
    """json_transform_strict(payload, '{"z": "INT"}') is null""",
    # a regular expression
    *(f"regexp_matches('x', {TEXT} || '{pattern}')" for pattern in ("(", "[", "(?P<", "\\")),
    *(f"regexp_matches('x', '{pattern}' || {TEXT})" for pattern in ("(", "(?P<", ")", "**")),
    f"'x' similar to ({TEXT} || '(')",
    f"regexp_extract_all('x', {TEXT} || '(') is null",
    # a date and its parts
    f"strptime({TEXT}, '%Y') is null",
    f"strptime({TEXT}, ['%Y', '%d']) is null",
    f"strftime(now(), {TEXT} || '%') is null",
    f"date_trunc({TEXT}, now()) is null",
    f"now() at time zone {TEXT} is null",
    f"make_date({COUNT}, 1, 1) is null",
    # too large, out of range
    f"{COUNT} * {COUNT} > 0",
    f"cast({COUNT} as int) = 1",
    f"cast({COUNT} as decimal(4, 1)) = 1",
    f"{COUNT} << 12 > 0",
    f"{COUNT} / 0 > 0 and {COUNT} % 0 > 0",
    f"repeat({TEXT}, {COUNT}) = ''",
    f"chr({COUNT} % 100000000) = ''",
    # no text
    f"decode(({TEXT} || '\\xff')::blob) = ''",
    f"url_decode({TEXT} || '%ff') = ''",
    f"from_base64({TEXT}) is null",
    f"('\\x' || {TEXT})::blob is null",
    f"format('{{' || {TEXT} || '}}', 1) = ''",
    # what the statement itself says
    f"external_id = '{CANARY}' and bogus(1)",
    f"date 'mail {CANARY}' is null",
    f"external_id = '{CANARY}' '{CANARY}'",
)


def put_object(warehouse: Warehouse) -> None:
    warehouse.execute(
        f"insert into {warehouse.table('raw_objects')} (idem_key, source_system, connection_name,"
        " object_type, external_id, payload, payload_hash, first_seen, last_seen, changed_at,"
        " changed_by, merged_by, last_action) select 'gmail:acct1:message:w', 'gmail', 'acct1',"
        " 'message', 'w', ?, 'hash', now(), now(), now(), 'run', 'run', 'inserted'",
        (json.dumps(PAYLOAD),),
    )


def quoted(text: str) -> bool:
    return any(part in text for part in (CANARY, "mail", str(NUMBER)[:6]))


@pytest.mark.slow
def test_what_duckdb_says_of_a_condition_quotes_no_value(warehouse: Warehouse) -> None:
    put_object(warehouse)
    said: dict[str, str] = {}
    with warehouse.open():
        for condition in CONDITIONS:
            said[condition] = "no error"
            try:
                Erasure(warehouse, Selection("gmail", "acct1", (), condition)).preview()
            except UsageError as error:
                said[condition] = str(error)
    assert {condition: text for condition, text in said.items() if quoted(text)} == {}
    assert {condition: text for condition, text in said.items() if "Error: " not in text} == {}


def test_the_command_says_nothing_of_a_condition_s_values(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    put_object(warehouse)
    of = ("erase", "--source", "gmail", "--connection", "acct1", "--dry-run")
    code, out, err = run_main(capsys, *of, "--debug", "--where", f"{TEXT}::int[] is null")
    assert code == 2
    assert "with value" in err
    assert not quoted(out + err)
    _, _, err = run_main(capsys, *of, "--where", f"'{CANARY}' = 1")
    assert "Could not convert string" in one_line(err)
    assert not quoted(err)


def test_what_duckdb_says_of_keys_and_of_texts_in_wrong_quotes_repeats_none(
    warehouse: Warehouse,
) -> None:
    with warehouse.open():
        for statement in (
            "create schema scratch",
            "create table scratch.keyed (c varchar primary key)",
            "create table scratch.child (c varchar references scratch.keyed)",
            f"insert into scratch.keyed values ('{CANARY}')",
            f"insert into scratch.child values ('{CANARY}')",
        ):
            warehouse.execute(statement)
        for statement in (
            f"insert into scratch.keyed values ('{CANARY}')",
            f"insert into scratch.child values ('{CANARY}2')",
            "delete from scratch.keyed",
            f'select * from scratch.keyed where c = "mail {CANARY}"',
            f'select * from scratch.keyed where keyed."mail {CANARY}" = c',
            f"select * from scratch.keyed where c = 'O'{CANARY}'",
            f"select * from scratch.keyed where c = '{CANARY}",
            f"select * from scratch.keyed where c = $${CANARY}",
        ):
            with pytest.raises(
                WarehouseError, match=r"(Constraint|Binder|Parser) Error: "
            ) as raised:
                warehouse.execute(statement)
            assert not quoted(str(raised.value))


@pytest.mark.parametrize(
    "message",
    [
        'Binder Error: Referenced column "a" not found in FROM clause! Candidate bindings: "b.c"',
        "Constraint Error: NOT NULL constraint failed: k.e",
        "Invalid Input Error: MERGE INTO command cannot affect the same target row more than once.",
        "Conversion Error: Type VARCHAR can't be cast as UNION",
        'IO Error: Could not set lock on file "/data/w.duckdb": Conflicting lock is held',
        "config.toml: expected a table (at line 3, column 1)",
    ],
)
def test_what_quotes_no_value_stays(message: str) -> None:
    assert redact(message) == message


@pytest.mark.parametrize(
    ("message", "left"),
    [
        (f"Invalid NUMERIC value: {CANARY}", "Invalid NUMERIC value: …"),
        (f"Cannot parse regular expression: missing ): {CANARY}(", "expression: …"),
        (f"int64 overflow: {NUMBER} * {NUMBER}", "int64 overflow: …"),
        (f"division by zero: {NUMBER} / 0", "division by zero: …"),
        (f'Syntax error: Unexpected string literal "{CANARY}" at [2:5]', "string literal …"),
        (f"Invalid token in JSONPath at: .{CANARY}", "JSONPath at: …"),
    ],
)
def test_what_bigquery_says_of_values_and_literals_is_left_out(message: str, left: str) -> None:
    assert redact(message).endswith(left)


def test_a_message_that_was_blanked_keeps_what_is_added_to_it() -> None:
    said = redact(f"Invalid Input Error: missing ): {CANARY}(\n\nLINE 2: x = '{CANARY}'\n   ^^^")
    assert said == "Invalid Input Error: missing ) …"
    assert redact(f'{said}; run "run.py x" (again)') == f'{said}; run "run.py x" (again)'


def test_of_a_message_in_lines_only_the_statement_s_goes() -> None:
    text = (
        f"Parser Error: bad\n\nLINE 2: x = '{CANARY}'\n        ^^^^\ncompiled code at target/x.sql"
    )
    assert without_content(text) == "Parser Error: bad\n\n\ncompiled code at target/x.sql"


def test_of_a_long_text_the_beginning_is_looked_through() -> None:
    assert without_content("x" * LONGEST_TEXT + CANARY) == "x" * LONGEST_TEXT + "…"

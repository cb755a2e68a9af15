"""Whatever a source sends goes through landing and MERGE unchanged, or is a dead letter.

Hundreds of generated texts a run: one dbt build takes them all. What has to become of a text is
decided here in another way than the gate does it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from loaders.ingestion.ingest import DeadLettered, Ingestion, IngestOptions
from loaders.objects.idem_keys import idem_key
from loaders.objects.items import Item, Observed
from loaders.warehouse.base import Warehouse

from .conftest import (
    EMULATOR,
    HOSTILE_TEXTS,
    Run,
    ScriptedSource,
    assert_accounted,
    at,
    on_both_targets,
    run_ingestion,
)

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("LANDFALL_PROPERTY_EXAMPLES", "400"))
ON_EMULATOR = 150
MAX_DEPTH = 254  # docs/design.md: bounded

# ---- texts

# fmt: off
KEPT_NUMBERS = [
    "0", "-0", "-0.0", "1.0", "1e5", "1E+2", "0.1", "1e22", "1e23", "5e-324", "9007199254740993",
    "0.30000000000000004", "1.7976931348623157e308", "9223372036854775807", "9223372036854775808",
    "-9223372036854775808", "18446744073709551615",
]
OTHER_NUMBERS = [
    "1e-400", "1e400", "-1e400", "9007199254740993.0", "4.9e-325", "-9223372036854775809",
    "18446744073709551616", "123456789012345678901234567890.123456789",
    "0.1000000000000000055511151231257827", "9" * 40, "1" + "0" * 400, "0." + "1" * 40,
    "NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "0x10", "1_000",
]
OTHER_STRINGS = [
    '"\\ud800"', '"\\udc00\\ud800"', '"\\x"', '"\\u12"', '"\x01"', '"\t"', '"open', "'single'",
]
NAMES = ['""', '"$"', '"a.b"', '"$.id"', '"a\\"b"', '"id"', '"ID"', '"__proto__"', '"[0]"', '"\'"']
WRONG_BYTES = [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x00", b"\xe2\x82"]
# fmt: on
characters = st.characters(codec="utf-8") | st.sampled_from(
    "\x00\x01\x1f\x7f\x80\u2028\u2029\ufeff\ufffe\uffff\ufdd0\U0001fffe\U0010ffff\U0001f986'\"\\/`$"
)
written = st.text(characters, max_size=12) | st.sampled_from(list(HOSTILE_TEXTS.values()))
strings = st.builds(
    lambda text, is_ascii: json.dumps(text, ensure_ascii=is_ascii), written, st.booleans()
) | st.sampled_from(['"\\ud83e\\udd86"', '"\\u0000"', '"\\uFEFF"', '"\\/"', '"\\ud83e\\\\udd86"'])
numbers = (
    st.sampled_from(KEPT_NUMBERS)
    | st.integers(-(2**63), 2**64 - 1).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
)
other_numbers = (
    st.sampled_from(OTHER_NUMBERS)
    | st.integers(-(2**90), 2**90).map(str)
    | st.decimals(allow_nan=False, allow_infinity=False, places=12).map(str)
)
space = st.sampled_from(["", "", "", " ", "\n", "\t\r\n"])


def listed(brackets: str) -> Callable[[list[str], str], str]:
    return lambda parts, gap: brackets[0] + gap + f"{gap},{gap}".join(parts) + gap + brackets[1]


def objects(names: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> Any:
    """Members may repeat their names, as no dict can."""
    member = st.builds(lambda name, gap, value: f"{name}{gap}:{value}", names, space, values)
    return st.builds(listed("{}"), st.lists(member, max_size=4), space)


def documents(names: st.SearchStrategy[str], scalars: st.SearchStrategy[str]) -> Any:
    def within(inner: st.SearchStrategy[str]) -> Any:
        return st.builds(listed("[]"), st.lists(inner, max_size=4), space) | objects(names, inner)

    return objects(names, st.recursive(scalars, within, max_leaves=10))


names = strings | st.sampled_from(NAMES)
clean = documents(names, st.sampled_from(["null", "true", "false"]) | numbers | strings)
dirty = documents(
    names | st.sampled_from(OTHER_STRINGS),
    numbers | strings | other_numbers | st.sampled_from([*OTHER_STRINGS, "nil", "undefined"]),
)
deep = st.builds(
    lambda depth, bracket: '{"a":' + bracket[0] * depth + "1" + bracket[1] * depth + "}",
    st.sampled_from([1, 100, 252, 253, 254, 255, 500, 3_000]),
    st.sampled_from([('{"a":', "}"), ("[", "]")]),
)
no_objects = st.sampled_from(["1", '"text"', "null", "[]", "", " ", "{} {}", "\ufeff"])
texts = clean | clean.map(str.encode) | dirty | deep | no_objects
wrapped = st.builds(
    lambda before, text, after: before + text + after,
    st.sampled_from(["", "\ufeff", "\x00", "\u00a0", "\n ", "// note\n"]),
    clean,
    st.sampled_from(["", "\x00", " \n", ",", "{}"]),
)
raw = st.builds(
    lambda text, wrong, where: text[:where] + wrong + text[where:],
    clean.map(str.encode),
    st.sampled_from([b"", *WRONG_BYTES]),
    st.integers(0, 30),
)
halves = st.builds(
    lambda text, where: text[:where] + "\ud83e" + text[where:], clean, st.integers(0, 30)
)
external_ids = st.text(characters, min_size=1, max_size=8)


def drawn(strategy: st.SearchStrategy[Any], number: int) -> list[Any]:
    """So many of them, always the same ones."""
    found: list[Any] = []

    @settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


# ---- what has to become of them


class NotKept(Exception):
    """The documented rule says that a warehouse does not keep it."""


def value_of(text: str | bytes) -> Any:
    """The value, its numbers exact. Raises NotKept, or ValueError for what is no JSON."""
    decoded = text.decode() if isinstance(text, bytes) else text
    try:
        value = json.loads(
            decoded, parse_int=integer, parse_float=real, parse_constant=no, object_pairs_hook=once
        )
    except RecursionError:
        raise NotKept("depth") from None
    if not isinstance(value, dict) or depth_of(value) > MAX_DEPTH:
        raise NotKept("shape")
    json.dumps(value, ensure_ascii=False, default=str).encode()  # ValueError for half of a pair
    return value


def integer(literal: str) -> Decimal:
    if not -(2**63) <= int(literal[:50]) < 2**64 or len(literal) > 20:
        raise NotKept("64 bits")
    return Decimal(literal)


def real(literal: str) -> Decimal:
    number = Decimal(literal)
    if abs(float(number)) == float("inf") or Decimal(repr(float(number))) != number:
        raise NotKept("float")
    return number


def no(_: str) -> Any:
    raise NotKept("constant")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise NotKept("repeated")
    return dict(pairs)


def depth_of(value: Any) -> int:
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, (dict, list))]:
        depth += 1
        level = [
            child for each in level for child in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def exact(payload: str) -> Any:
    return json.loads(payload, parse_int=Decimal, parse_float=Decimal, object_pairs_hook=once)


# ---- through landing and MERGE


class Poison(ScriptedSource):
    """Keys that do not depend on the text."""

    def idem_key(self, item: Observed, payload: Mapping[str, Any]) -> str:
        return idem_key("acme", "acct1", item.object_type, str(item.external_id))


def run_poison(warehouse: Warehouse, items: list[Item]) -> Run:
    return run_ingestion(
        Ingestion(
            warehouse,
            lambda: Poison(items),
            source_system="acme",
            connection_name="acct1",
            options=IngestOptions(),
        )
    )


@on_both_targets
def test_what_comes_out_is_what_went_in_or_a_dead_letter(
    warehouse: Warehouse, target_type: str, merge_only: None
) -> None:
    number = ON_EMULATOR if target_type == EMULATOR else EXAMPLES
    sent = {f"w{n}": text for n, text in enumerate(drawn(texts | wrapped | raw | halves, number))}
    items: list[Item] = [Observed("widget", text, at(1), key) for key, text in sent.items()]

    run = run_poison(warehouse, items)

    assert isinstance(run.error, DeadLettered)
    assert_accounted(run.telemetry)
    payload = warehouse.json_as_text("payload")
    stored = dict(warehouse.execute(f"select external_id, {payload} from events.raw_objects"))
    letters = dict(
        warehouse.execute("select external_id, payload from events_staging.dead_letters")
    )
    assert stored.keys().isdisjoint(letters)
    assert stored.keys() | letters.keys() == sent.keys()
    assert min(len(stored), len(letters)) > number / 8, "a generator that tells nothing"
    for key, text in sent.items():
        try:
            expected = value_of(text)
        except (NotKept, ValueError):
            assert key in letters, text
            kept = text.decode(errors="backslashreplace") if isinstance(text, bytes) else text
            assert letters[key] == kept.encode(errors="backslashreplace").decode()
            continue
        assert key in stored, (text, letters[key])
        assert exact(stored[key]) == expected, text


@on_both_targets
def test_ids_are_kept_literally(warehouse: Warehouse, target_type: str, merge_only: None) -> None:
    number = 40 if target_type == EMULATOR else EXAMPLES // 4
    of_halves = ["\ud83e", "a\udfffb"]  # as json.loads makes them of \\ud83e
    ids = [*{*drawn(external_ids, number), *HOSTILE_TEXTS.values()}, *of_halves]
    run = run_poison(warehouse, [Observed("widget", "{}", at(1), each) for each in ids])
    keys = dict(warehouse.execute("select external_id, idem_key from events.raw_objects"))
    letters = {
        row[0] for row in warehouse.execute("select external_id from events_staging.dead_letters")
    }
    assert warehouse.execute("select count(*) from events.raw_objects")[0][0] == len(keys)
    assert keys.keys() == {*ids} - {*of_halves}
    assert letters == {"\\ud83e", "a\\udfffb"}
    assert isinstance(run.error, DeadLettered)
    assert all(key == f"acme:acct1:widget:{each}" for each, key in keys.items())

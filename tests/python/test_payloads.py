"""The landing gate: what it refuses, what it leaves alone, what the hash sees."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders.errors import PayloadError
from loaders.objects import payloads
from loaders.objects.payloads import MAX_DEPTH, TOMBSTONE_HASH, admit

CANARY = "canary-content-77ab"


def nested(depth: int) -> str:
    """An object that holds arrays in arrays, `depth` levels with itself."""
    return '{"a": ' + "[" * (depth - 1) + "]" * (depth - 1) + "}"


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "duplicate key": ('{"a": 1, "b": 2, "a": 1}', "repeats"),
    "duplicate key, nested": ('{"a": [{"b": 1, "b": 2}]}', "repeats"),
    "duplicate key, escaped": ('{"a": 1, "\\u0061": 2}', "repeats"),
    "NaN": ('{"a": NaN}', "NaN"),
    "Infinity": ('{"a": Infinity}', "Infinity"),
    "minus Infinity": ('{"a": -Infinity}', "Infinity"),
    "1e999": ('{"a": 1e999}', "64-bit float"),
    "minus 1e999": ('{"a": -1e999}', "64-bit float"),
    "2 to the 64": ('{"a": 18446744073709551616}', "64 bits"),
    "below minus 2 to the 63": ('{"a": -9223372036854775809}', "64 bits"),
    "thousand digits": ('{"a": ' + "9" * 1000 + "}", "64 bits"),
    "float that would change": ('{"a": 0.12345678901234567890123}', "64-bit float"),
    "float beyond 2 to the 53": ('{"a": 9007199254740993.0}', "64-bit float"),
    "tiny float": ('{"a": 1e-400}', "64-bit float"),
    "lone surrogate": ('{"a": "\\ud83e"}', "surrogate"),
    "lone low surrogate": ('{"a": "\\udd86 x"}', "surrogate"),
    "lone surrogate as a key": ('{"\\ud83e": 1}', "surrogate"),
    "lone surrogate, unescaped": ('{"a": "\ud83e"}', "surrogate"),
    "too deep": (nested(MAX_DEPTH + 1), "deeper"),
    "too deep, objects": ('{"a":' * MAX_DEPTH + "{}" + "}" * MAX_DEPTH, "deeper"),
    "far too deep": (nested(200_000), "deeper|not JSON"),
    "too large": ('{"a": "' + "x" * payloads.MAX_BYTES + '"}', "larger"),
    "a list": ("[1]", "not a JSON object"),
    "text": ('"text"', "not a JSON object"),
    "a number": ("17", "not a JSON object"),
    "null": ("null", "not a JSON object"),
    "not UTF-8": (b'{"a": "\xff"}', "UTF-8 at byte 7"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "UTF-8"),
    "truncated": ('{"a": "b', "not JSON"),
    "truncated after a member": ('{"a": 1,', "not JSON"),
    "two objects": ('{"a": 1}{"a": 1}', "not JSON"),
    "empty": ("", "not JSON"),
    "blank": (b"  ", "not JSON"),
    "HTML": ("<html></html>", "not JSON"),
    "single quotes": ("{'a': 1}", "not JSON"),
    "trailing comma": ('{"a": 1,}', "not JSON"),
    "control character in text": ('{"a": "\n"}', "not JSON"),
    "leading zero": ('{"a": 01}', "not JSON"),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_warehouse_would_change_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        admit(text)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"{CANARY}": 1, "{CANARY}": 2}}',
        f'{{"a": "{CANARY}", "b": NaN}}',
        f'{{"a": "{CANARY}", "b": 1e999}}',
        f'{{"a": "{CANARY}", "b": 18446744073709551616}}',
        f'{{"a": "{CANARY}\\ud83e"}}',
        f'["{CANARY}"]',
        f'{{"a": "{CANARY}',
        f'"{CANARY}"',
        b'{"a": "' + CANARY.encode() + b'\xff"}',
        nested(MAX_DEPTH + 1).replace("[]", f'["{CANARY}"]'),
    ],
    ids=["duplicate", "NaN", "1e999", "integer", "surrogate", "list", "truncated", "text",
         "not UTF-8", "deep"],
)  # fmt: skip
def test_a_refusal_carries_no_content(text: str | bytes) -> None:
    with pytest.raises(PayloadError) as refusal:
        admit(text)
    error: BaseException | None = refusal.value
    assert error is not None
    assert CANARY not in str(error)


ADMITTED = {
    "key order": '{"b": 1, "a": 2}',
    "whitespace": ' {"a" :\t1 ,\r\n "b":[ ] } ',
    "number literals": '{"a": 1.0, "b": 1e2, "c": 1E+2, "d": 0.10, "e": -0, "f": -0.0}',
    "limits of 64 bits": '{"a": 9223372036854775807, "b": -9223372036854775808}',
    "unsigned limit": '{"a": 18446744073709551615}',
    "shortest floats": '{"a": 0.1, "b": 1.7976931348623157e308, "c": 5e-324}',
    "escapes": '{"a": "\\u00e9\\/\\u2028\\u0000\\"\\\\"}',
    "Google's escapes": '{"a": "\\u003cb\\u003e \\u0026 \\u003d \\u0027"}',
    "surrogate pair": '{"a": "\\ud83e\\udd86 🦆"}',
    "empty": "{}",
    "deepest": nested(MAX_DEPTH),
    "wide": json.dumps({"a": [[]] * 1000}),
}


@pytest.mark.parametrize("text", ADMITTED.values(), ids=ADMITTED.keys())
def test_admitted_text_is_kept_byte_for_byte(text: str) -> None:
    kept, value, _ = admit(text.encode())
    assert kept == text.encode()
    assert value == json.loads(text)
    assert admit(text)[0] == text.encode()


@pytest.mark.parametrize("text", ADMITTED.values(), ids=ADMITTED.keys())
def test_admitted_text_is_json_for_the_warehouse(text: str) -> None:
    duckdb.execute("select cast(? as json)", [text])


def hash_of(text: str, *volatile: str) -> str:
    return admit(text, volatile)[2]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param('{"a": 1, "b": {"c": 2, "d": 3}}', '{"b":{"d":3,"c":2},"a":1}', id="order"),
        pytest.param('{"a": "\\u00e9"}', '{"a": "é"}', id="escapes"),
        pytest.param('{"a": 1.0}', '{"a": 1e0}', id="number notation"),
        pytest.param('{"a": [1, 2]}', '{ "a" : [ 1 , 2 ] }', id="whitespace"),
    ],
)
def test_the_hash_ignores_how_a_value_is_written(one: str, other: str) -> None:
    assert hash_of(one) == hash_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param('{"a": 1}', '{"a": 2}', id="number"),
        pytest.param('{"a": 1}', '{"a": "1"}', id="type"),
        pytest.param('{"a": [1, 2]}', '{"a": [2, 1]}', id="list order"),
        pytest.param('{"a": null}', "{}", id="null and absent"),
        pytest.param('{"a": true}', '{"a": 1}', id="true and one"),
        pytest.param('{"a": 9007199254740992}', '{"a": 9007199254740993}', id="big integers"),
        pytest.param('{"a": "e\\u0301"}', '{"a": "\\u00e9"}', id="unicode normal forms"),
        pytest.param('{"a": ""}', '{"a": " "}', id="blank"),
    ],
)
def test_the_hash_sees_every_value(one: str, other: str) -> None:
    assert hash_of(one) != hash_of(other)


def test_the_hash_is_of_canonical_json() -> None:
    assert hash_of('{"b": 1, "a": "é"}') == hashlib.sha256('{"a":"é","b":1}'.encode()).hexdigest()
    assert hashlib.sha256(b"null").hexdigest() == TOMBSTONE_HASH


def test_volatile_keys_stay_out_of_the_hash_at_any_depth_and_in_the_text() -> None:
    template = '{{"id": "x", "v": "{0}", "parts": [{{"body": {{"v": "{0}", "size": 1}}}}]}}'
    one, other = template.format("one"), template.format("two")
    assert hash_of(one) != hash_of(other)
    assert hash_of(one, "v") == hash_of(other, "v")
    assert admit(one, ("v",))[0] == one.encode()
    assert hash_of(one, "v") != hash_of(one.replace('"size": 1', '"size": 2'), "v")


def test_a_volatile_name_among_the_values_counts() -> None:
    assert hash_of('{"a": "v", "b": 1}', "v") != hash_of('{"a": "w", "b": 1}', "v")


texts = st.text(
    st.characters(codec="utf-8")
    | st.sampled_from("\"\\/<>&='\x00\x1f\x7f\u2028\u2029\U0001f986\ufeff\n")
)
numbers = (
    st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.sampled_from([0.1, 1e22, 1e23, -0.0, 2**53 + 1, 5e-324])
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=12,
)
documents = st.one_of(st.dictionaries(texts, values, max_size=5), values)


def google_escaped(text: str) -> str:
    for escaped, character in payloads._GOOGLE_ESCAPES:
        text = text.replace(character.decode(), escaped.decode())
    return text


WRITERS: dict[str, Callable[[Any], str]] = {
    "compact": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "ascii": json.dumps,
    "indented": lambda value: json.dumps(value, indent=2),
    "google": lambda value: google_escaped(
        json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    ),
}


def outcome(text: str) -> Any:
    try:
        return admit(text)
    except PayloadError as error:
        return str(error)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(documents, st.sampled_from(sorted(WRITERS)))
def test_the_fast_path_admits_what_the_strict_one_does(value: Any, writer: str) -> None:
    text = WRITERS[writer](value)
    fast = outcome(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(payloads, "_parse", lambda data, _: payloads._parse_strictly(data))
        strict = outcome(text)
    assert fast == strict
    assert repr(fast) == repr(strict)  # 1 and 1.0 and True are equal


@given(documents, documents)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_value_that_is_not_the_text_s_changes_nothing(value: Any, other: Any) -> None:
    text = json.dumps(value)
    with contextlib.suppress(PayloadError):
        assert admit(text, (), other) == admit(text)


@pytest.mark.parametrize("size", [10, 2_030, 2_048, 5_000, 70_000])
def test_the_hash_does_not_depend_on_the_pieces_it_is_taken_in(size: int) -> None:
    text = json.dumps({"a": "x" * size}, separators=(",", ":"))
    assert admit(text)[2] == hashlib.sha256(text.encode()).hexdigest()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(st.sampled_from('{}[]":,0123456789.eE+-\\u tfnab<&\ud83e'), max_size=30))
def test_the_paths_agree_about_what_is_hardly_json(tail: str) -> None:
    text = '{"a":' + tail
    fast = outcome(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(payloads, "_parse", lambda data, _: payloads._parse_strictly(data))
        strict = outcome(text)
    assert repr(fast) == repr(strict)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(texts, values, max_size=5))
def test_what_is_admitted_means_the_same_afterwards(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    try:
        kept, parsed, _ = admit(text)
    except PayloadError:
        return
    assert kept == text.encode()
    assert repr(parsed) == repr(json.loads(text))

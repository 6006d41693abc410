import json
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.extract.json_records import MalformedBody, NotAnArray, decode_body, iter_records

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["]", ",", '"', "\\", "[{", "\u2028", "\ud800"])
)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5)
)
spacing = st.text(" \t\r\n", max_size=2)


def read_whole(body: str) -> Any:
    return json.loads(body, parse_float=Decimal, parse_constant=Decimal)


@st.composite
def spaced(draw: st.DrawFn, values: st.SearchStrategy[Any] = documents) -> str:
    """A document's text, with white space in any place that takes it."""
    before, after = draw(spacing), draw(spacing)
    separators = (draw(spacing) + "," + draw(spacing), draw(spacing) + ":" + draw(spacing))
    text = json.dumps(
        draw(values), separators=separators, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))
    )
    return before + text + after


@given(spaced(st.lists(documents, max_size=8)))
def test_same_records_as_reading_the_body_whole(body: str) -> None:
    assert [value for value, _, _ in iter_records(body)] == read_whole(body)


@given(spaced(st.lists(documents, max_size=8)))
def test_a_span_holds_the_text_of_its_record(body: str) -> None:
    for value, start, end in iter_records(body):
        assert read_whole(body[start:end]) == value
        assert body[start:end].strip(" \t\r\n") == body[start:end]


@given(spaced(st.fixed_dictionaries({"data": st.fixed_dictionaries({"items": st.lists(documents)}), "": documents})))
def test_same_records_at_a_path(body: str) -> None:
    records = [(value, body[start:end]) for value, start, end in iter_records(body, "data.items")]
    assert [value for value, _ in records] == read_whole(body)["data"]["items"]
    assert [read_whole(text) for _, text in records] == read_whole(body)["data"]["items"]


@given(
    spaced(st.lists(documents, max_size=4) | documents),
    st.data(),
)
def test_accepts_exactly_what_json_loads_accepts(body: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(body)))
    cut = data.draw(st.integers(0, 2))
    damaged = body[:at] + data.draw(st.text('[]{},:"0-.e \\x', max_size=2)) + body[at + cut :]
    try:
        expected: Any = read_whole(damaged)
    except ValueError:
        expected = MalformedBody
    if expected is not MalformedBody and not isinstance(expected, list):
        expected = NotAnArray
    try:
        found: Any = [value for value, _, _ in iter_records(damaged)]
    except (MalformedBody, NotAnArray) as error:
        found = type(error)
    assert found == expected


@pytest.mark.parametrize("body", ["[]", " [ ] ", "\n[\t]\r\n"])
def test_an_empty_array_has_no_records(body: str) -> None:
    assert list(iter_records(body)) == []


def test_money_is_exact_and_integers_stay_integers() -> None:
    records = [value for value, _, _ in iter_records("[1.10, 1e2, -0.0, 7, 123456789012345678901234567890, NaN]")]
    assert [repr(value) for value in records] == [
        "Decimal('1.10')",
        "Decimal('1E+2')",
        "Decimal('-0.0')",
        "7",
        "123456789012345678901234567890",
        "Decimal('NaN')",
    ]


def test_numbers_beyond_every_limit_cost_only_their_own_value() -> None:
    digits = "9" * (sys.get_int_max_str_digits() + 1)
    body = f'[{{"n": {digits}}}, {{"n": 1e{"9" * 30}}}, {{"n": -1e-{"9" * 30}}}, {{"n": 0.1}}]'
    assert [value["n"] for value, _, _ in iter_records(body)] == [
        Decimal(digits),
        Decimal("Infinity"),
        Decimal("-0"),
        Decimal("0.1"),
    ]


@pytest.mark.parametrize("body", ["[" * 200_000, '[{"a":' * 200_000, '{"a":' * 200_000])
def test_deep_nesting_is_a_malformed_body(body: str) -> None:
    with pytest.raises(MalformedBody, match="nested too deeply"):
        list(iter_records(body))


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        ("", "", "the body is empty, where a JSON document was expected"),
        ("  \n", "", "the body is empty, where a JSON document was expected"),
        (
            "<!DOCTYPE html><html><head><title>Sign\n in</title>",
            "",
            'the body is HTML or XML titled "Sign in", not JSON: something else than the API answered',
        ),
        (
            '[{"id": 1}, {"id"',
            "",
            "the body is not valid JSON: Expecting ':' delimiter: line 1 column 18 (char 17) "
            "(the end of the body: cut off?)",
        ),
        ("[1, 2] x", "", "the body is not valid JSON: Extra data: line 1 column 8 (char 7)"),
        ("[1 2]", "", "the body is not valid JSON: Expecting ',' delimiter: line 1 column 4 (char 3)"),
        (
            '{"a": [1], "a": [2]}',
            "a",
            'the body is not valid JSON: "a" a second time in the same object: line 1 column 17 (char 16)',
        ),
        ('{"a": [1], "b": }', "a", "the body is not valid JSON: Expecting value: line 1 column 17 (char 16)"),
        ('{"a": 1} x', "", "the body is not valid JSON: Extra data: line 1 column 10 (char 9)"),
    ],
)
def test_malformed_bodies_say_what_came(body: str, path: str, message: str) -> None:
    with pytest.raises(MalformedBody) as raised:
        list(iter_records(body, path))
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        (
            '{"data": [], "next": null}',
            "",
            'expected an array, but the body is an object with the names "data", "next"',
        ),
        ("{}", "data", 'expected an array at "data", but the body is an object without names'),
        ("null", "", "expected an array, but the body is null"),
        ("3.5", "", "expected an array, but the body is a number"),
        ("[1]", "data", 'expected an array at "data", but the body is an array'),
        (
            '{"data": {"rows": 1}}',
            "data.items",
            'expected an array at "data.items", but "data" in the body is an object with the names "rows"',
        ),
        (
            '{"data": {"items": "none"}}',
            "data.items",
            'expected an array at "data.items", but "items" in "data" in the body is a string',
        ),
    ],
)
def test_other_json_says_what_stands_there(body: str, path: str, message: str) -> None:
    with pytest.raises(NotAnArray) as raised:
        list(iter_records(body, path))
    assert str(raised.value) == f"{message}: the endpoint's `records` says where the array is"


@pytest.mark.parametrize(
    ("body", "path", "values"),
    [
        ("{}", "items?", []),
        ('{"data": {}, "more": 1}', "data.items?", []),
        ('{"more": 1}', "data.items?", []),
        ('{"items": [1]}', "items?", [1]),
    ],
)
def test_a_body_may_leave_out_an_empty_array_where_the_path_says_so(body: str, path: str, values: list[int]) -> None:
    assert [value for value, _, _ in iter_records(body, path)] == values


@pytest.mark.parametrize("body", ['{"items": null}', '{"items": {}}', "[]", '"none"'])
def test_what_stands_in_place_of_an_optional_array_is_an_error(body: str) -> None:
    with pytest.raises(NotAnArray, match='expected an array at "items", but'):
        list(iter_records(body, "items?"))


def test_bodies_are_utf_8_with_or_without_a_byte_order_mark() -> None:
    assert decode_body('["é"]'.encode("utf-8-sig")) == decode_body('["é"]'.encode()) == '["é"]'
    with pytest.raises(MalformedBody, match=r"^the body is not UTF-8: byte 0xe9 at offset 2$"):
        decode_body('["é"]'.encode("latin-1"))

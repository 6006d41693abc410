"""The records of a JSON body, one at a time, each with the place of its own text in the body.

The elements are read by the standard library's C scanner, so whatever `json.loads` accepts is accepted here, and
nothing else, with two differences: a number with a fraction or an exponent is a `Decimal` (money is never a float), and
the name that leads to the array may stand only once in its object (`json.loads` would silently take the last).
"""

import json
import re
from collections.abc import Generator, Iterator
from decimal import Decimal, InvalidOperation
from json.scanner import make_scanner
from typing import Any

__all__ = ["MalformedBody", "NotAnArray", "decode_body", "iter_records"]

Record = tuple[Any, int, int]

_SPACE = re.compile(r"[ \t\n\r]*").match
_AFTER_ELEMENT = re.compile(r"[ \t\n\r]*([],])[ \t\n\r]*").match
_TITLE = re.compile(r"<title[^>]*>(.{0,200}?)</title", re.IGNORECASE | re.DOTALL)


class MalformedBody(ValueError):  # noqa: N818 - named for what the body is
    """The body is not a JSON document in UTF-8: cut off, an HTML page, an unknown encoding."""


class NotAnArray(ValueError):  # noqa: N818 - as above
    """The body is JSON, but has no array where the records should be."""


def decode_body(raw: bytes) -> str:
    """The text of a body in UTF-8, without its byte order mark if it has one.

    Raises:
        MalformedBody: other bytes than UTF-8, with the offset of the first that does not belong.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedBody(f"the body is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}") from None


def iter_records(body: str, path: str = "") -> Iterator[Record]:
    """Yield `(value, start, end)` of each element of the array at `path`; `body[start:end]` is its original text.

    Args:
        body: a JSON document.
        path: names that lead to the array through nested objects, dotted: `"data.items"`; `""` is the body itself. With
            a question mark behind it, a body without these names has no records.

    Integers are `int` (`Decimal` beyond Python's limit of digits), all other numbers `Decimal`, `NaN` and `Infinity`
    too; an exponent beyond what a `Decimal` holds becomes `Infinity` or zero, as it would in a float.

    Errors come when the place is reached, so possibly after records were yielded.

    Raises:
        MalformedBody: not a JSON document, or nested too deeply, or a name of the path twice in one object.
        NotAnArray: a JSON document without an array at `path`.
    """
    names = path.removesuffix("?").split(".") if path else []
    try:
        try:
            end = yield from _descend(body, _skip(body, 0), names)
            if end != len(body):
                raise json.JSONDecodeError("Extra data", body, end)
        except NotAnArray:
            value, place, absent = _reached(body, names)
            if absent and path.endswith("?"):
                return
            raise NotAnArray(_what_came_instead(value, place, ".".join(names))) from None
    except json.JSONDecodeError as error:
        raise MalformedBody(_what_is_malformed(body, error)) from None
    except RecursionError:
        raise MalformedBody("the body's JSON is nested too deeply to be read") from None


def _integer(text: str) -> int | Decimal:
    try:
        return int(text)
    except ValueError:  # more digits than sys.get_int_max_str_digits()
        return Decimal(text)


def _fraction(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of 19 digits and more
        return Decimal(float(text))


# make_scanner takes anything with a decoder's settings; its declared type is the scanner's own.
_scan_fast = make_scanner(json.JSONDecoder(parse_float=Decimal, parse_constant=Decimal))  # type: ignore[arg-type]
_scan_any = make_scanner(
    json.JSONDecoder(parse_float=_fraction, parse_int=_integer, parse_constant=Decimal)  # type: ignore[arg-type]
)


def _scan(body: str, start: int) -> tuple[Any, int]:
    """The value that begins at `start`, and its end."""
    try:
        return _scan_fast(body, start)
    except (ValueError, InvalidOperation) as error:
        if isinstance(error, json.JSONDecodeError):
            raise
        return _scan_any(body, start)  # a number with too many digits, or too large an exponent
    except StopIteration as stop:
        raise json.JSONDecodeError("Expecting value", body, stop.value) from None


def _skip(body: str, index: int) -> int:
    return _SPACE(body, index).end()  # type: ignore[union-attr]  # the pattern matches the empty string


def _descend(body: str, start: int, names: list[str]) -> Generator[Record, None, int]:
    """Yield the elements of the array that `names` lead to from the value at `start`.

    Returns the index of what follows the value and the white space behind it.
    """
    if not names:
        return (yield from _elements(body, start))
    if body[start : start + 1] != "{":
        raise NotAnArray
    found = False
    index = _skip(body, start + 1)
    if body[index : index + 1] == "}":
        raise NotAnArray
    while True:
        if body[index : index + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", body, index)
        name, index = _scan(body, index)
        index = _skip(body, index)
        if body[index : index + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", body, index)
        index = _skip(body, index + 1)
        if name == names[0]:
            if found:
                raise json.JSONDecodeError(f'"{name}" a second time in the same object', body, index)
            found = True
            index = yield from _descend(body, index, names[1:])
        else:
            index = _skip(body, _scan(body, index)[1])
        after = body[index : index + 1]
        index = _skip(body, index + 1)
        if after == "}" and found:
            return index
        if after == "}":
            raise NotAnArray
        if after != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", body, index)


def _elements(body: str, start: int) -> Generator[Record, None, int]:
    """Yield the elements of the array at `start`; returns the index behind the array and its white space."""
    if body[start : start + 1] != "[":
        raise NotAnArray
    index = _skip(body, start + 1)
    if body[index : index + 1] == "]":
        return _skip(body, index + 1)
    scan, after_element = _scan, _AFTER_ELEMENT
    while True:
        value, end = scan(body, index)
        yield value, index, end
        after = after_element(body, end)
        if after is None:
            raise json.JSONDecodeError("Expecting ',' delimiter", body, _skip(body, end))
        index = after.end()
        if after[1] == "]":
            return index


def _what_is_malformed(body: str, error: json.JSONDecodeError) -> str:
    if not body.strip():
        return "the body is empty, where a JSON document was expected"
    if body.lstrip("\ufeff \t\r\n").startswith("<"):
        title = _TITLE.search(body, 0, 10_000)
        titled = f' titled "{" ".join(title[1].split())}"' if title else ""
        return f"the body is HTML or XML{titled}, not JSON: something else than the API answered"
    cut = " (the end of the body: cut off?)" if error.pos >= len(body.rstrip()) else ""
    return f"the body is not valid JSON: {error}{cut}"


def _reached(body: str, names: list[str]) -> tuple[Any, str, bool]:
    """How far `names` lead: the value there, its place in words, and whether an object lacks the next name."""
    value, end = _scan(body, _skip(body, 0))
    if _skip(body, end) != len(body):
        raise json.JSONDecodeError("Extra data", body, _skip(body, end))
    place = "the body"
    for name in names:
        if not isinstance(value, dict) or name not in value:
            return value, place, isinstance(value, dict)
        value, place = value[name], f'"{name}" in {place}'
    return value, place, False


def _what_came_instead(value: Any, place: str, path: str) -> str:
    """Say what stands where the array should be, with the names that could lead to one."""
    kinds = {dict: "an object", str: "a string", bool: "true or false", type(None): "null"}
    kind = "an array" if isinstance(value, list) else kinds.get(type(value), "a number")
    if isinstance(value, dict):
        names = ", ".join(f'"{name}"' for name in list(value)[:20])
        kind += f" with the names {names}" if names else " without names"
    wanted = f'an array at "{path}"' if path else "an array"
    return f"expected {wanted}, but {place} is {kind}: the endpoint's `records` says where the array is"

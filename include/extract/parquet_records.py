"""The records of a Parquet file, one at a time, as JSON text; a batch of rows in memory.

Decimals are written digit by digit, never through a float. Times are ISO 8601 in UTC, to the microsecond; those without
a zone are taken as UTC. Bytes are text in UTF-8; where they are not, those that do not belong are lone surrogates
(0xff is `\\udcff`), which no valid record has. NaN and infinities stay what they are, and are refused where a number is
expected. A time beyond the years 1 to 9999 is a text that says so. A map is an object.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import IO, Any

import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # as above

from include.extract.file_records import BadFileError, check_names, object_template, quote

__all__ = ["parquet_records"]

BATCH = 5000
BUFFER = 1024 * 1024


def parquet_records(
    source: IO[bytes], required: Sequence[Collection[str]], note: Callable[[str], None], batch: int = BATCH
) -> Iterator[str]:
    """The JSON text of each record of a Parquet file, read `batch` rows at a time.

    `required` are the names of which the file must have one each; `note` takes what was assumed of the file.

    Raises BadFileError: torn, no Parquet file, columns that cannot be used.
    """
    try:
        opened = pq.ParquetFile(source, buffer_size=BUFFER)
        schema = opened.schema_arrow
        check_names(schema.names, required, "check the file")
        unzoned = [field.name for field in schema if pa.types.is_timestamp(field.type) and field.type.tz is None]
        if unzoned:
            note(f"the times in {', '.join(unzoned)} have no zone: taken as UTC")
        readable = pa.schema([(field.name, _readable(field.type)) for field in schema])
        made = object_template(schema.names)
        for rows in opened.iter_batches(batch_size=batch):
            columns = rows.cast(readable, safe=False).columns
            yield from map(made, zip(*(map(_json, _values(column)) for column in columns), strict=True))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and type(error) is not OSError:  # a connection's, not pyarrow's
            raise
        raise BadFileError(f"it is torn, or no Parquet file ({error}); have it sent again") from error


def _readable(kind: Any) -> Any:
    """The type with what Python cannot hold taken out: nanoseconds, and zones other than UTC."""
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us" if kind.unit == "ns" else kind.unit, tz="UTC")
    if kind == pa.time64("ns"):
        return pa.time64("us")
    if kind == pa.duration("ns"):
        return pa.duration("us")
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_readable(kind.value_type)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_readable(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_readable(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, kind.item_field.with_type(_readable(kind.item_type)))
    return kind


def _values(column: Any) -> list[Any]:
    try:
        return column.to_pylist(maps_as_pydicts="lossy")  # type: ignore[no-any-return]  # pyarrow has no types
    except (ValueError, OverflowError):  # one of them, not the column
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py(maps_as_pydicts="lossy")
    except (ValueError, OverflowError):
        if pa.types.is_string(scalar.type) or pa.types.is_large_string(scalar.type):
            return bytes(scalar.as_buffer())
        return f"no {scalar.type} that can be read"


def _json(value: Any) -> str:
    write = _WRITERS.get(type(value))
    return quote(str(value)) if write is None else write(value)


def _bytes(value: bytes) -> str:
    return json.dumps(value.decode("utf-8", "surrogateescape"))


def _float(value: float) -> str:
    return json.dumps(value)


def _time(value: datetime) -> str:
    return f'"{value.astimezone(UTC).isoformat()}"'


def _iso(value: date | time) -> str:
    return f'"{value.isoformat()}"'


def _list(values: list[Any]) -> str:
    return f"[{', '.join(map(_json, values))}]"


def _object(values: dict[Any, Any]) -> str:
    return "{" + ", ".join(f"{quote(str(name))}: {_json(value)}" for name, value in values.items()) + "}"


def _decimal(value: Decimal) -> str:
    return format(value, "f")


_WRITERS: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "null",
    bool: lambda value: "true" if value else "false",
    str: quote,
    int: str,
    float: _float,
    Decimal: _decimal,
    datetime: _time,
    date: _iso,
    time: _iso,
    bytes: _bytes,
    list: _list,
    dict: _object,
}

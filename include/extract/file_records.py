"""The records of a csv or jsonl file, one at a time, as JSON text; packed files are unpacked on the way.

Never more than a line and a block of bytes in memory. A line that is no record is given as one all the same, with what
is wrong with it, so that it can be rejected with its original text; what spoils the whole file raises.
"""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring as quote
from typing import IO

import zstandard

from include.contracts.files import Files

__all__ = ["BadFileError", "Malformed", "check_names", "object_template", "quote", "text_records"]

BLOCK = 256 * 1024
ZSTD_BLOCK = 8 * 1024
"""Packed bytes that are unpacked at once; one may stand for thousands."""
LONGEST_LINE = 32 * 1024 * 1024
"""Characters; a longer one is no line, but a file without line breaks."""
BLANK = " \t\r\n"


class BadFileError(ValueError):
    """The file as a whole cannot be read; says what to do."""


@dataclass(frozen=True)
class Malformed:
    """A line that is no record: its original text as a JSON string, and why.

    Bytes that the encoding does not have are lone surrogates in it: 0xff is `\\udcff` (PEP 383).
    """

    text: str
    reason: str


def text_records(
    source: IO[bytes], name: str, files: Files, required: Sequence[Collection[str]]
) -> Iterator[str | Malformed]:
    """The JSON text of each record of a csv or jsonl file that is called `name`.

    Of csv all values are text and an empty one is null. A jsonl line is given as it came. Blank lines are skipped.
    Of each of `required` a csv header must have one name.

    Raises BadFileError: torn, not in its encoding at all, a line beyond 32 million characters, a csv without a usable
    header.
    """
    chunks = _unpacked(source, name)
    if files.format == "csv":
        yield from _csv_records(name, _Lines(_lines(chunks, files.encoding, "")), files.delimiter, required)
    else:
        yield from _jsonl_records(name, _lines(chunks, files.encoding, "\n"))


def check_names(names: Sequence[str], required: Sequence[Collection[str]], advice: str) -> None:
    """Checks a file's column names. Raises BadFileError: one is empty, or there twice, or a required one lacks."""
    shown = ", ".join(map(ascii, names[:20]))
    if _has_stray_bytes("".join(names)):
        raise BadFileError(f"its header has bytes that its encoding does not have: {shown}; {advice}")
    if "" in names:
        raise BadFileError(f"column {names.index('') + 1} has no name in its header: {shown}; {advice}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadFileError(f"column {twice[0]!r} stands in its header twice; {advice}")
    for choices in required:
        if not set(names) & set(choices):
            missing = " or ".join(map(repr, sorted(choices)))
            raise BadFileError(f"it has no column {missing}, which is of the key; its columns are {shown}; {advice}")


def object_template(names: Sequence[str]) -> Callable[[tuple[str, ...]], str]:
    """What makes the JSON object with these names of the JSON texts of their values."""
    template = "{" + ", ".join(f"{quote(name)}: ".replace("%", "%%") + "%s" for name in names) + "}"
    return template.__mod__


def _unpacked(source: IO[bytes], name: str) -> Iterator[bytes]:
    """The file's content, unpacked as its name says, in blocks."""
    try:
        if name.lower().endswith(".gz"):
            with gzip.GzipFile(fileobj=source) as unpacked:
                yield from iter(lambda: unpacked.read1(BLOCK), b"")
        elif name.lower().endswith(".zst"):
            yield from _unpacked_zstd(source)
        else:
            yield from iter(lambda: source.read(BLOCK), b"")
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise BadFileError(
            f"it cannot be unpacked, it is torn or is something else than its name says ({error}); have it sent again"
        ) from error


def _unpacked_zstd(source: IO[bytes]) -> Iterator[bytes]:
    """All frames; zstandard's own stream reader ends without an error where a frame is cut off."""
    unpacking = None
    packed = b""
    while packed := packed or source.read(ZSTD_BLOCK):
        unpacking = unpacking or zstandard.ZstdDecompressor().decompressobj()
        yield unpacking.decompress(packed)
        packed = unpacking.unused_data
        if unpacking.eof:
            unpacking = None
    if unpacking is not None:
        raise EOFError("the file ends within a frame")


def _lines(chunks: Iterator[bytes], encoding: str, newline: str) -> Iterator[str]:
    """The lines with their ends; `newline` as that of `open`."""
    name = codecs.lookup(encoding).name
    decoder = codecs.getincrementaldecoder("utf-8-sig" if name == "utf-8" else name)("surrogateescape")
    rest = ""
    try:
        for chunk in chunks:
            lines = io.StringIO(rest + decoder.decode(chunk), newline).readlines()
            rest = lines.pop() if lines else ""  # the last may go on in the next block
            if len(rest) > LONGEST_LINE:
                raise BadFileError(f"it has a line of more than {LONGEST_LINE:,} characters; it needs line breaks")
            yield from lines
        yield from io.StringIO(rest + decoder.decode(b"", True), newline)
    except UnicodeDecodeError as error:
        raise BadFileError(
            f"it is not in the encoding {encoding} ({error.reason}); check the `encoding` of the contract's files"
        ) from error


def _has_stray_bytes(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _malformed(name: str, line: int, text: str, what: str) -> Malformed:
    text = text.rstrip("\r\n")
    return Malformed(json.dumps(text) if _has_stray_bytes(text) else quote(text), f"{name}, line {line:,}: {what}")


def _jsonl_records(name: str, lines: Iterator[str]) -> Iterator[str | Malformed]:
    decode = json.JSONDecoder(parse_int=float).decode  # numbers of any length; the record's own text is what counts
    for number, line in enumerate(lines, start=1):
        text = line.strip(BLANK)
        if not text:
            continue
        if _has_stray_bytes(text):
            yield _malformed(name, number, text, "it has bytes that its encoding does not have")
            continue
        try:
            decode(text)
        except json.JSONDecodeError as error:
            yield _malformed(name, number, text, f"it is not JSON: {error.msg} at character {error.pos + 1:,}")
        except RecursionError:
            yield _malformed(name, number, text, "its JSON is nested too deeply")
        else:
            yield text


class _Lines:
    """Lines for a csv reader: counts them, remembers those of the record that is being read, and takes some back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self.taken: list[str] = []
        self.number = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        self.number += 1
        return line

    def give_back(self) -> str:
        """Gives back all lines of the record but the first, which is returned."""
        first, *others = self.taken
        self._again.extendleft(reversed(others))
        self.number -= len(others)
        return first


def _csv_records(
    name: str, lines: _Lines, delimiter: str, required: Sequence[Collection[str]]
) -> Iterator[str | Malformed]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    advice = "check the file, and the `delimiter` and `encoding` of the contract's files"
    try:
        header = [name.strip() for name in next(filter(None, reader))]
    except StopIteration:
        raise BadFileError("it is empty, where a csv has at least a header line; have it sent again") from None
    except csv.Error as error:
        raise BadFileError(f"its header cannot be read ({error}); {advice}") from None
    check_names(header, required, advice)
    width, made = len(header), object_template(header)
    while True:
        lines.taken.clear()
        number = lines.number + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # an open quote swallows what follows: only the line where it opens is lost
            yield _malformed(name, number, lines.give_back(), f"it cannot be read as csv: {error}")
            continue
        taken = lines.taken
        text = taken[0] if len(taken) == 1 else "".join(taken)
        if _has_stray_bytes(text):
            yield _malformed(name, number, text, "it has bytes that its encoding does not have")
        elif len(row) == width:
            yield made(tuple([quote(value) if value else "null" for value in row]))
        elif row:
            yield _malformed(name, number, text, f"{len(row)} fields, the header has {width}")

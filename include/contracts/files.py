"""An entity's files in a folder or bucket."""

import codecs
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

__all__ = ["Files"]

Format = Literal["csv", "jsonl", "parquet"]
Holds = Literal["snapshot", "increment"]


@dataclass(frozen=True)
class Files:
    """Files that a source leaves under a URI; each is loaded once, and one whose content has changed is another.

    Names that begin with a dot or an underscore are somebody's temporary or marker files, and are left alone.

    Attributes:
        uri: the folder: `"file:///data/invoices"`, `"s3://aws_default@bucket/invoices"`; the part before the @ is the
            Airflow connection.
        format: `"csv"` (with a header line; values are text, an empty one is null), `"jsonl"` or `"parquet"`; a name
            of the first two that ends with .gz or .zst is unpacked.
        holds: what a file holds: the whole entity (`"snapshot"`: what it lacks is deleted; only the newest is read) or
            some of it (`"increment"`).
        pattern: which names, as a glob; `**/` in front looks into subfolders too.
        marker: the suffix of the file that says that another is whole (`".done"`: `"a.csv"` and `"a.csv.done"`). Where
            there is to be none, or it is older than its file, a file is taken when it was left alone for `settled`.
        settled: how long a file must have been left alone. Object stores show files whole only: zero will do there.
        encoding: of csv and jsonl.
        delimiter: of csv.

    Raises ValueError for a declaration that cannot work.
    """

    uri: str
    format: Format
    holds: Holds
    pattern: str = "*"
    marker: str = ""
    settled: timedelta = timedelta(minutes=1)
    encoding: str = "utf-8"
    delimiter: str = ","

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise ValueError(f"files {self.uri}: format {self.format!r} is none of {', '.join(get_args(Format))}")
        if self.holds not in get_args(Holds):
            raise ValueError(f"files {self.uri}: holds {self.holds!r} is none of {', '.join(get_args(Holds))}")
        if len(self.delimiter) != 1:
            raise ValueError(f"files {self.uri}: the delimiter must be one character, not {self.delimiter!r}")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise ValueError(f"files {self.uri}: Python knows no encoding {self.encoding!r}") from None

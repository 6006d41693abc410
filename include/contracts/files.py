"""An entity's files in a folder or bucket."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

__all__ = ["Files"]


@dataclass(frozen=True)
class Files:
    """Files that a source leaves under a URI; each is loaded once, and one whose content has changed is another.

    Attributes:
        uri: the folder: `"file:///data/invoices"`, `"s3://aws_default@bucket/invoices"`; the part before the @ is the
            Airflow connection.
        format: `"csv"` (with a header line), `"jsonl"` or `"parquet"`; a name that ends with .gz or .zst is unpacked.
        holds: what a file holds: the whole entity (`"snapshot"`: what it lacks is deleted) or some of it (`"increment"`).
        pattern: which names, as a glob; `**/` in front looks into subfolders too.
        marker: the suffix of the file that says that another is whole (`".done"`: `"a.csv"` and `"a.csv.done"`); without
            one a file is taken when it has not been written to for `settled`.
        settled: how long a file must have been left alone. Object stores show files whole only: zero will do there.
        encoding: of csv and jsonl.
        delimiter: of csv.
    """

    uri: str
    format: Literal["csv", "jsonl", "parquet"]
    holds: Literal["snapshot", "increment"]
    pattern: str = "*"
    marker: str = ""
    settled: timedelta = timedelta(minutes=1)
    encoding: str = "utf-8"
    delimiter: str = ","

"""Where Data Docs lie and how Airflow's UI leads to them.

Imported by each process that loads plugins, so that what is slow to import is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from airflow.sdk.bases.operatorlink import BaseOperatorLink
from airflow.sdk.configuration import conf

from include.masking import sentence
from include.quality.data_docs import DataDocsError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, ObjectStoragePath
    from airflow.sdk.types import TaskInstanceKey

PREFIX = "/sluice"
"""Where the plugin's pages are mounted on the API server."""


def folder() -> ObjectStoragePath:
    """The folder of all pages, which the Variable `data_docs_uri` names; in tasks and in the API server alike.

    Raises DataDocsError where there is no such Variable, or none that names a folder.
    """
    from airflow.sdk import ObjectStoragePath, Variable

    uri = Variable.get("data_docs_uri", default=None)
    if not uri:
        raise DataDocsError(
            "nobody has said where Data Docs are kept: set the Variable data_docs_uri to a folder that tasks may write "
            "to and the API server may read (file:///..., s3://..., gs://...)"
        )
    try:
        return ObjectStoragePath(uri)
    except Exception as error:  # a scheme that nobody knows, a library or a connection that is not there
        raise DataDocsError(
            f"the Variable data_docs_uri names no folder that can be used: {sentence(error)}"
        ) from error


def path(dag_id: str, evaluation: UUID) -> str:
    """The path of an evaluation's page on the API server, below what `base_path` says."""
    return f"{PREFIX}/quality/{dag_id}/{evaluation}"


def base_path() -> str:
    """The path under which the whole of Airflow's UI is served, without a slash at its end; mostly empty."""
    return urlsplit(str(conf.get("api", "base_url", fallback=""))).path.rstrip("/")


class DataDocsLink(BaseOperatorLink):
    """A button on a task's page that leads to the page of what it evaluated in that try.

    The operator says it by an attribute `page`, a path as `path` makes it; an empty one makes no button.
    """

    name = "Data Docs"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The page's path on this host; the UI does not put the base path before it."""
        page = str(getattr(operator, "page", ""))
        return base_path() + page if page else ""

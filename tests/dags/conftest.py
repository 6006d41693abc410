"""The DAGs, parsed once by Airflow as its DAG processor does it, without a metadata database."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from sluice.dag_docs import DAGS, use_empty_airflow

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import DAG

_home = TemporaryDirectory(prefix="sluice-airflow-")  # removed when the process ends
use_empty_airflow(Path(_home.name))  # before any test of this folder imports airflow

FILES = sorted(path for path in DAGS.glob("*.py") if not path.name.startswith("_"))


@pytest.fixture(scope="session")
def bag() -> DagBag:
    """All DAG files, parsed."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(DAGS)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def dag(bag: DagBag, request: pytest.FixtureRequest) -> DAG:
    """Each DAG, one after the other."""
    return bag.dags[request.param.stem]

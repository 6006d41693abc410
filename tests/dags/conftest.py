"""The DAGs, parsed once by Airflow as its DAG processor does it, without a metadata database."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from sluice.dag_docs import DAGS, use_empty_airflow

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import DAG

_home = TemporaryDirectory(prefix="sluice-airflow-")  # removed when the process ends
_outside = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW")}
_level = logging.getLogger().level
use_empty_airflow(Path(_home.name))  # before any test of this folder imports airflow, which looks for its home once
importlib.import_module("airflow")
_inside = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW")}


def _become(environment: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    os.environ.update(environment)
    logging.getLogger().setLevel(_level)  # Airflow sets it once, to what it reads in its settings


_become(_outside)

FILES = sorted(path for path in DAGS.glob("*.py") if not path.name.startswith("_"))


@pytest.fixture(scope="package", autouse=True)
def _empty_airflow() -> Iterator[None]:
    """Airflow's own settings while the tests of this folder run, and no longer."""
    _become(_inside)
    yield
    _become(_outside)


@pytest.fixture(scope="package")
def bag() -> DagBag:
    """All DAG files, parsed."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(DAGS)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def dag(bag: DagBag, request: pytest.FixtureRequest) -> DAG:
    """Each DAG, one after the other."""
    return bag.dags[request.param.stem]

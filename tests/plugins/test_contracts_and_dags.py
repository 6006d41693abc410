"""What contracts decide of the DAGs: how each is synced, and what a broken one costs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from include.contracts.contract import Contract
from include.contracts.endpoint import Endpoint
from include.contracts.files import Files
from include.contracts.products import PRODUCTS
from include.local.stack import REPOSITORY
from include.operations.executions import Mode
from sluice.sync import synced

UNASKABLE = Endpoint("/products")
WHOLE = replace(PRODUCTS, endpoint=UNASKABLE, delta="whole")
NEVER = replace(PRODUCTS, endpoint=UNASKABLE, delta="never")
SNAPSHOTS = replace(PRODUCTS, endpoint=None, files=Files("/data", "csv", "snapshot"))
INCREMENTS = replace(PRODUCTS, endpoint=None, files=Files("/data", "csv", "increment"))


@pytest.mark.parametrize(
    ("contract", "daily", "delta"),
    [
        (PRODUCTS, "snapshot", "delta"),
        (WHOLE, "snapshot", "snapshot"),
        (NEVER, "snapshot", None),
        (SNAPSHOTS, "snapshot", "snapshot"),
        (INCREMENTS, "delta", "delta"),
    ],
)
def test_how_a_contract_is_synced(contract: Contract, daily: Mode, delta: Mode | None) -> None:
    modes: tuple[Mode, ...] = ("snapshot", "delta", "replay")
    assert [synced(contract, mode) for mode in modes] == [daily, delta, "replay"]


PARSE = """
import sys
from pathlib import Path
from sluice.dag_docs import use_empty_airflow
use_empty_airflow(Path(sys.argv[1]))
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[2])
print("FOUND", *sorted(bag.dags))
for file, error in sorted(bag.import_errors.items()):
    print(f"FAILED {Path(file).name}: {error.splitlines()[-1]}")
"""


def test_a_broken_contract_is_named_and_the_dags_that_need_none_are_unharmed(tmp_path: Path) -> None:
    for part in ("dags", "plugins", "include"):
        shutil.copytree(REPOSITORY / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    products = (REPOSITORY / "include" / "contracts" / "products.py").read_text()
    broken = products.replace('"products"', '"gadgets"').replace(
        "    brand: AnyText | None = None", "    brand: complex"
    )
    assert "complex" in broken
    (tmp_path / "include" / "contracts" / "gadgets.py").write_text(broken)
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{tmp_path / 'plugins'}"}
    ran = subprocess.run(
        [sys.executable, "-c", PARSE, str(tmp_path / "home"), str(tmp_path / "dags")],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = ran.stdout.splitlines()
    assert "FOUND housekeeping send_alerts" in lines
    failed = [line for line in lines if line.startswith("FAILED ")]
    assert "FAILED daily_sync.py" in "".join(failed)
    for line in failed:
        assert "contract gadgets: ProductRecord.brand: no column type fits <class 'complex'>" in line

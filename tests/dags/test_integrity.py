"""Every DAG file is parsed, quickly, to the same DAG each time, and holds wiring only."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sluice.dag_docs import DAGS, REPOSITORY
from tests.dags.conftest import FILES

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

LONGEST_FILE = 80  # lines
SLOWEST_PARSE = 3.0  # seconds of the processor for all files, once airflow is imported
SQL = re.compile(
    r"\bselect\b.+\bfrom\b|\binsert\s+into\b|\bupdate\s+\S+\s+set\b|\bdelete\s+from\b|\b(create|drop|alter)\s+table\b",
    re.IGNORECASE | re.DOTALL,
)

PARSE = """
import json, sys, time
from airflow.dag_processing.dagbag import DagBag
from airflow.models.serialized_dag import SerializedDagModel
from airflow.serialization.serialized_objects import DagSerialization
began = time.process_time()
bag = DagBag(sys.argv[1])
seconds = time.process_time() - began
print(json.dumps({
    "errors": bag.import_errors,
    "hashes": {dag_id: SerializedDagModel.hash(DagSerialization.to_dict(dag)) for dag_id, dag in bag.dags.items()},
    "seconds": seconds,
    "heavy": sorted({name.partition(".")[0] for name in sys.modules} & {"great_expectations", "pandas", "pyarrow"}),
}))
"""


def started(arguments: list[str], **changes: str) -> subprocess.Popen[str]:
    """A program of this virtual environment, in the empty Airflow of these tests."""
    python_path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "plugins")])
    environment = os.environ | {"PYTHONPATH": python_path} | changes
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], env=environment, stdout=pipe, stderr=pipe, text=True)


def answer(process: subprocess.Popen[str]) -> tuple[int, Any]:
    """Its exit status, and what it printed as JSON."""
    out, err = process.communicate(timeout=60)
    try:
        return process.returncode, json.loads(out.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        pytest.fail(f"printed no JSON: {out}\n{err}")


def test_every_file_is_a_dag_of_its_name(bag: DagBag) -> None:
    assert bag.import_errors == {}
    assert len(FILES) > 0
    assert sorted(bag.dags) == [path.stem for path in FILES]
    assert {Path(dag.fileloc).stem for dag in bag.dags.values()} == set(bag.dags)
    assert all(dag.fileloc == str(DAGS / f"{dag_id}.py") for dag_id, dag in bag.dags.items())


def test_airflow_lists_no_import_error_but_that_of_a_broken_file(tmp_path: Path) -> None:
    for path in FILES:
        shutil.copy(path, tmp_path)
    broken = tmp_path / "broken.py"
    broken.write_text("from airflow.sdk import DAG\nraise RuntimeError('a broken DAG file')\n")
    command = ["-m", "airflow", "dags", "list-import-errors", "--local", "--output", "json"]
    status, errors = answer(started(command, AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path)))
    assert (status, [error["filepath"] for error in errors]) == (1, [str(broken)]), errors
    assert "a broken DAG file" in errors[0]["error"]


def test_two_processes_parse_the_same_dags_quickly() -> None:
    one, other = (started(["-c", PARSE, str(DAGS)], PYTHONHASHSEED=seed) for seed in ("1", "2"))
    (status, first), (_, second) = answer(one), answer(other)
    assert (status, first["errors"], first["heavy"]) == (0, {}, [])
    assert set(first["hashes"]) == {path.stem for path in FILES}
    assert second["hashes"] == first["hashes"], "something in a DAG changes from parse to parse"
    print("seconds to parse:", first["seconds"])
    assert first["seconds"] < SLOWEST_PARSE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dag_file_is_wiring_only(path: Path) -> None:
    source = path.read_text()
    tree = ast.parse(source)
    assert len(source.splitlines()) <= LONGEST_FILE
    text = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert text[0] == ast.get_docstring(tree, clean=False)
    assert [words for words in text[1:] if SQL.search(words)] == []
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While | ast.AsyncFor)]
    assert all(isinstance(loop, ast.For) for loop in loops)
    assert [inner.lineno for loop in loops for inner in ast.walk(loop) if inner in loops and inner is not loop] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dag_file_asks_no_clock_and_no_dice_and_uses_airflows_public_parts(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert names & {"now", "today", "utcnow", "yesterday", "uuid1", "uuid4", "random", "environ", "getenv"} == set()
    assert not [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "get" and ast.unparse(node.value) in ("Variable", "conf")
    ]
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    of_airflow = [name for name in imported if name.partition(".")[0] == "airflow"]
    assert of_airflow
    assert [name for name in of_airflow if not re.match(r"airflow\.(sdk|providers)\b", name)] == []

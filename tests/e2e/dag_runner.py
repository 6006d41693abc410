"""Runs DAGs by `dag.test()`, as `airflow dags test` does, again and again in one process.

Importing Airflow and Great Expectations costs some 8 s: it is paid once. Each line of standard input is a JSON object,
`dag_id`, `conf` for the run and `environ` for the time of the run; the answer is a line of JSON on the file descriptor
that the first argument names. Logs go to standard output. The one thing that is not as in production: the waits between
tries of the same page are left out (their number is not).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from airflow.utils.cli import get_bagged_dag

from include.extract import client


def main() -> None:
    """Serves until standard input ends."""
    client._backoff = lambda state: 0.0  # type: ignore[assignment]  # shortened for the tests
    with os.fdopen(int(sys.argv[1]), "w") as answers:
        for line in sys.stdin:
            order: dict[str, Any] = json.loads(line)
            before = dict(os.environ)
            os.environ.update(order["environ"])
            dag = get_bagged_dag(bundle_names=None, dag_id=order["dag_id"])  # anew: a run's params stay in the object
            run = dag.test(run_conf=order["conf"])
            os.environ.clear()
            os.environ.update(before)
            sys.stdout.flush()
            print(json.dumps({"run_id": run.run_id, "state": str(run.state.value)}), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""Airflow's own processes and options for the local stack. Airflow runs as a program here and is never imported."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import requests

from include.local.processes import HOST, StackError, log_tail

logger = logging.getLogger(__name__)

ADMIN = "admin"
STARTUP_SECONDS = 120.0
# the API server reads the log files themselves: nobody needs the log servers, whose ports are fixed and public
COMPONENTS = {
    "airflow_api_server": ["api-server"],
    "airflow_scheduler": ["scheduler", "--skip-serve-logs"],
    "airflow_dag_processor": ["dag-processor"],
    "airflow_triggerer": ["triggerer", "--skip-serve-logs"],
}


def version() -> str:
    """The installed Airflow's version."""
    return metadata.version("apache-airflow-core")


def command(*arguments: str) -> list[str]:
    """Airflow's command line, run by this interpreter."""
    return [sys.executable, "-m", "airflow", *arguments]


def options(
    repository: Path, home: Path, metadata_uri: str, port: int, passwords: Path, keys: Mapping[str, str]
) -> dict[str, str]:
    """Environment variables that configure Airflow for a laptop.

    `metadata_uri` is a libpq URI; `keys` holds api_secret_key, jwt_secret and fernet_key; `passwords` is the file of
    the simple auth manager.
    """
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(repository / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(repository / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "10",
        "AIRFLOW__CORE__FERNET_KEY": keys["fernet_key"],
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{HOST}:{port}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata_uri.replace("postgresql://", "postgresql+psycopg2://", 1),
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://{HOST}:{port}",
        "AIRFLOW__API__SECRET_KEY": keys["api_secret_key"],
        "AIRFLOW__API_AUTH__JWT_SECRET": keys["jwt_secret"],
        "GX_ANALYTICS_ENABLED": "False",
    }


def run(arguments: list[str], environ: Mapping[str, str], log: Path) -> None:
    """Run one Airflow command to its end, its output appended to `log`. Raises StackError if it fails."""
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        result = subprocess.run(  # noqa: S603 - Airflow's own program
            command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
            check=False,
        )
    if result.returncode != 0:
        raise StackError(f"`airflow {' '.join(arguments)}` failed with {result.returncode}. {log_tail(log)}")
    logger.info("airflow: %s done in %.1f s", " ".join(arguments), time.monotonic() - started)


def is_healthy(port: int) -> bool:
    """Whether the API server answers and says that the metadata database and the three other processes are healthy."""
    health = get(f"http://{HOST}:{port}/api/v2/monitor/health")
    if health is None or health.status_code != requests.codes.ok:
        return False
    parts = health.json()
    return all(
        (parts.get(part) or {}).get("status") == "healthy"
        for part in ("metadatabase", "scheduler", "dag_processor", "triggerer")
    )


def get(url: str) -> requests.Response | None:
    """GET a local address past any proxy of the environment; None while nobody answers there."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(url, timeout=5)
        except requests.RequestException:
            return None

"""The Dockerfile, docker-compose.yaml, .env and the CI workflow agree with the repository and with each other.

No container engine is needed: Compose only renders its file here, and hadolint reads the Dockerfile.
"""

from __future__ import annotations

import ast
import base64
import importlib.util
import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from include.local import env_file
from include.local.settings import Settings

REPOSITORY = env_file.REPOSITORY
BIN = Path(sys.executable).parent
COMPOSE = (REPOSITORY / "docker-compose.yaml").read_text()
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
WORKFLOW = (REPOSITORY / ".github/workflows/ci.yml").read_text()
AIRFLOW_SERVICES = {"airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"}
SERVICES = AIRFLOW_SERVICES | {"postgres", "valkey", "airflow-init"}


def assignments(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.M))


EXAMPLE = assignments(env_file.EXAMPLE.read_text())
OPTIONAL = sorted(EXAMPLE.keys() - env_file.SECRETS.keys())


def compose(env: Path, *arguments: str, profile: str = "demo") -> subprocess.CompletedProcess[str]:
    """Runs Compose on the repository's file, with nothing but `env` to fill it in."""
    return subprocess.run(
        [BIN / "docker-compose", "--env-file", env, "--profile", profile, *arguments],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "HOME": str(env.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def rendered(env: Path, profile: str = "demo") -> dict[str, Any]:
    result = compose(env, "config", "--format", "json", profile=profile)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def env(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("env") / ".env"
    env_file.write(path)
    return path


@pytest.fixture(scope="module")
def config(env) -> dict[str, Any]:
    return rendered(env)


# ---- .env


def test_env_file_draws_every_secret_anew_and_leaves_the_rest_empty(env, tmp_path):
    other = tmp_path / ".env"
    env_file.write(other)
    drawn = [assignments(path.read_text()) for path in (env, other)]
    assert set(EXAMPLE.values()) == {""}
    assert [list(values) for values in drawn] == [list(EXAMPLE)] * 2
    assert [{name for name, value in values.items() if value} for values in drawn] == [set(env_file.SECRETS)] * 2
    secrets = [values[name] for values in drawn for name in env_file.SECRETS]
    assert len(set(secrets)) == 2 * len(env_file.SECRETS)
    assert all(re.fullmatch(r"[\w-]{32,}=?", secret) for secret in secrets)
    assert len(base64.urlsafe_b64decode(drawn[0]["AIRFLOW_FERNET_KEY"])) == 32


def test_the_command_needs_no_package_writes_for_the_owner_only_and_never_overwrites(tmp_path):
    path = tmp_path / ".env"
    command = [sys.executable, "-S", "-m", "include.local.env_file", path]
    first = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    written = path.read_text()
    second = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (first.returncode, first.stderr, second.returncode, second.stdout) == (0, "", 1, "")
    assert "docker compose" in first.stdout
    assert f"{path} exists and stays as it is" in second.stderr
    assert not [name for name, value in assignments(written).items() if value and value in first.stdout + second.stderr]
    assert path.read_text() == written
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_example_names_what_compose_reads_and_nothing_else():
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE)) == set(EXAMPLE)


def test_no_secret_has_a_default():
    uses = re.findall(r"\$\{(\w+)([^${}]*)\}", COMPOSE)
    assert {(name, form) for name, form in uses if name in env_file.SECRETS} == {
        (name, ":?run make env-file") for name in env_file.SECRETS
    }


# ---- docker-compose.yaml


def test_the_services_of_each_profile(env, config):
    assert config["services"].keys() == SERVICES | {"demo-api"}
    assert rendered(env, profile="")["services"].keys() == SERVICES


@pytest.mark.parametrize("name", sorted(env_file.SECRETS))
def test_compose_refuses_a_missing_secret_and_names_the_remedy(env, tmp_path, name):
    lacking = tmp_path / ".env"
    lacking.write_text("".join(line for line in env.open() if not line.startswith(f"{name}=")))
    result = compose(lacking, "config", profile="")
    assert (result.returncode, result.stdout) == (1, "")
    assert f"required variable {name} is missing a value: run make env-file" in result.stderr


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield from leaves(child, (*path, str(name)))
    if not isinstance(value, dict | list):
        yield path, str(value)


def test_every_password_comes_from_the_env_file(config, tmp_path):
    other = tmp_path / ".env"
    env_file.write(other)
    again = dict(leaves(rendered(other)))
    fixed = {path: value for path, value in leaves(config) if again[path] == value}
    secret_names = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY$|_AUTH$")
    assert {path for path in fixed if secret_names.search(path[-1])} == set()
    assert {path for path, value in fixed.items() if re.search(r"://[^/@]*:[^/@]+@|requirepass", value)} == set()
    assert len(again) - len(fixed) > len(env_file.SECRETS)


def test_no_file_spells_a_password():
    literal = re.compile(r"""(?i)\w*(?:password|secret|token|_key)\w*["']?\s*(?:=|:\s)\s*["']?(?!\$)[\w-]+""")
    files = (DOCKERFILE, WORKFLOW, COMPOSE, (REPOSITORY / ".dockerignore").read_text())
    assert [match for text in files for match in literal.findall(text)] == []


def test_every_airflow_option_exists(config):
    core = importlib.util.find_spec("airflow")
    assert core is not None
    assert core.origin is not None
    described = yaml.safe_load((Path(core.origin).parent / "config_templates/config.yml").read_text())
    names = {name for service in config["services"].values() for name in service.get("environment") or {}}
    options = [name.removeprefix("AIRFLOW__").lower().split("__") for name in names if name.startswith("AIRFLOW__")]
    assert len(options) == 10
    assert [(section, option) for section, option in options if option not in described[section]["options"]] == []
    auth_manager = config["services"]["airflow-init"]["environment"]["AIRFLOW__CORE__AUTH_MANAGER"]
    module, _, name = auth_manager.rpartition(".")
    source = Path(core.origin).parents[1] / f"{module.replace('.', '/')}.py"
    assert f"class {name}(" in source.read_text()


def test_connections_and_variables_are_those_of_airflow_settings(config, env):
    declared = Settings.read(REPOSITORY / "airflow_settings.yaml")
    environment = config["services"]["airflow-scheduler"]["environment"]
    drawn = assignments(env.read_text())
    passwords = {
        "postgres": drawn["SLUICE_DB_PASSWORD"],
        "valkey": drawn["VALKEY_PASSWORD"],
        "demo-api": drawn["DEMO_API_TOKEN"],
    }
    given = {name: urlsplit(value) for name, value in environment.items() if name.startswith("AIRFLOW_CONN_")}
    assert {
        name: (url.scheme, url.hostname, url.port, url.username or None, url.password, url.path[1:] or None)
        for name, url in given.items()
    } == {
        one.variable: (
            one.conn_type,
            one.conn_host,
            one.conn_port,
            one.conn_login,
            passwords.get(one.conn_host),  # a source of one's own has its password in .env
            one.conn_schema,
        )
        for one in declared.connections
    }
    assert {name: value for name, value in environment.items() if name.startswith("AIRFLOW_VAR_")} == {
        one.variable: str(one.variable_value) for one in declared.variables
    }


def test_what_the_env_file_sets_reaches_every_airflow_service(env, tmp_path):
    own = {name: f'{{"conn_type": "{name}", "extra": {{"a": "b c"}}}}' for name in OPTIONAL if "CONN" in name}
    own |= {name: f"own-{name}" for name in OPTIONAL if "VAR" in name}
    path = tmp_path / ".env"
    path.write_text(env.read_text() + "AIRFLOW_PORT=8181\n" + "".join(f"{name}='{own[name]}'\n" for name in own))
    services = rendered(path)["services"]
    for service in AIRFLOW_SERVICES | {"airflow-init"}:
        assert {name: services[service]["environment"][name] for name in own} == own
    assert services["airflow-apiserver"]["ports"][0]["published"] == "8181"
    assert services["airflow-init"]["environment"]["AIRFLOW__API__BASE_URL"] == "http://localhost:8181"
    assert own.keys() | {"AIRFLOW_PORT"} == set(OPTIONAL)


def test_only_the_ui_is_published_and_to_this_machine_only(config):
    assert {name: service["ports"] for name, service in config["services"].items() if "ports" in service} == {
        "airflow-apiserver": [
            {"mode": "ingress", "host_ip": "127.0.0.1", "target": 8080, "published": "8080", "protocol": "tcp"}
        ]
    }


def test_every_lasting_service_is_checked_restarted_and_kept_and_init_comes_first(config):
    services = config["services"]
    lasting = services.keys() - {"airflow-init"}
    assert {name: " ".join(services[name].get("healthcheck", {}).get("test", ())) for name in lasting} == {
        "postgres": "CMD pg_isready --host=127.0.0.1 --username=postgres",
        "valkey": "CMD-SHELL valkey-cli ping | grep -q PONG",
        "airflow-apiserver": "CMD curl --fail --silent http://localhost:8080/api/v2/monitor/health",
        "airflow-scheduler": "CMD curl --fail --silent http://localhost:8974/health",
        "airflow-dag-processor": "CMD airflow jobs check --job-type DagProcessorJob --local",
        "airflow-triggerer": "CMD airflow jobs check --job-type TriggererJob --local",
        "demo-api": "CMD curl --fail --silent http://localhost:8000/health",
    }
    assert {services[name]["restart"] for name in lasting} == {"unless-stopped"}
    assert services["airflow-init"]["restart"] == "no"
    after_init = {"airflow-init": {"condition": "service_completed_successfully", "required": True}}
    assert [services[name]["depends_on"] for name in AIRFLOW_SERVICES] == [after_init] * 4
    mounts = {(name, m["source"], m["target"]) for name in services for m in services[name].get("volumes", ())}
    assert mounts == {
        ("postgres", "postgres", "/var/lib/postgresql"),
        ("valkey", "valkey", "/data"),
        *((name, "landing", "/opt/airflow/landing") for name in AIRFLOW_SERVICES | {"airflow-init"}),
        *((name, "data_docs", "/opt/airflow/data_docs") for name in AIRFLOW_SERVICES | {"airflow-init"}),
        *((name, "logs", "/opt/airflow/logs") for name in AIRFLOW_SERVICES | {"airflow-init"}),
    }
    assert {source for _, source, _ in mounts} == config["volumes"].keys()


def run_init(config: dict[str, Any], place: Path, failing: str = "none of them") -> tuple[int, list[str]]:
    """Runs the script of airflow-init with an `airflow` and a migration that only note how they were called."""
    log = place / "calls"
    note = f'#!/bin/sh\necho "$(basename $0) $*" >> {log}\n'
    end = f'case "$*" in *"{failing}"*) exit 3;; esac\n'
    (place / "airflow").write_text(f'{note}case "$1" in pools) cat "$3" > {place}/pools;; esac\n{end}')
    (place / "python").write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} "$@"\n{note[10:]}{end}')
    for program in ("airflow", "python"):
        (place / program).chmod(0o755)
    result = subprocess.run(
        [argument.replace("$$", "$") for argument in config["services"]["airflow-init"]["command"]],
        cwd=REPOSITORY,
        env={"PATH": f"{place}:/usr/bin:/bin", "AIRFLOW_ADMIN_PASSWORD": "pass word", "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    return result.returncode, log.read_text().splitlines()


INIT = [
    "airflow db migrate",
    "airflow users create --username admin --password pass word --role Admin "
    "--firstname Sluice --lastname Admin --email admin@example.com",
    "airflow pools import /dev/stdin",
    "python -m sluice.migrate",
]


def test_init_migrates_makes_the_admin_imports_the_pools_and_migrates_the_data(config, tmp_path):
    assert run_init(config, tmp_path) == (0, INIT)
    assert (tmp_path / "pools").read_text().strip() == Settings.read(REPOSITORY / "airflow_settings.yaml").pools_json()


@pytest.mark.parametrize("step", range(len(INIT)))
def test_init_stops_at_a_step_that_fails(config, tmp_path, step):
    assert run_init(config, tmp_path, failing=INIT[step].split(" ", 1)[1]) == (3, INIT[: step + 1])


def test_every_module_that_is_run_exists():
    modules = set(re.findall(r"python3?,? -m,? ([\w.]+)", COMPOSE + DOCKERFILE + WORKFLOW))
    assert modules == {"include.local.demo_api", "sluice.migrate"}
    assert {module for module in modules if importlib.util.find_spec(module) is None} == set()


def test_the_demo_api_takes_the_options_that_it_is_given(config):
    command = config["services"]["demo-api"]["command"]
    help_text = subprocess.run(
        [sys.executable, *command[1:3], "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert [option for option in command if option.startswith("--") and f"{option} " not in help_text] == []


# ---- Dockerfile


def stage(name: str) -> str:
    found = re.search(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert found, name
    return found.group(1)


def test_hadolint_finds_nothing():
    result = subprocess.run([BIN / "hadolint", REPOSITORY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_what_the_image_copies_exists_and_nothing_else_reaches_the_build():
    copied = {
        source for sources in re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", DOCKERFILE, re.M) for source in sources.split()
    }
    assert {source for source in copied if not (REPOSITORY / source).exists()} == set()
    ignore = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignore == ["*", *(line for line in ignore if line[0] == "!"), "**/__pycache__", "**/*.py[co]"]
    assert {line[1:] for line in ignore if line[0] == "!"} == copied


def test_compose_builds_stages_that_exist_and_the_pipelines_are_the_last(config):
    stages = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.M)
    built = {
        service["image"]: service["build"]["target"] for service in config["services"].values() if "build" in service
    }
    assert stages == ["locked", "demo", "pipelines"]
    assert built == {"sluice": "pipelines", "sluice-demo": "demo"}


def test_the_image_has_the_folders_that_volumes_are_mounted_on(config):
    """Docker makes a volume root's own where the image has no such folder."""
    made = re.search(r"^RUN mkdir -p (.+) && chmod g\+rwX \1$", DOCKERFILE, re.M)
    assert made
    mounts = {m["target"] for name in AIRFLOW_SERVICES for m in config["services"][name]["volumes"]}
    assert {f"/opt/airflow/{folder}" for folder in made.group(1).split()} == mounts


def test_the_image_runs_without_root():
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.M) == ["50000"]


def locked(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", (REPOSITORY / name).read_text(), re.M))


def test_the_lock_pins_the_airflow_of_the_base_image():
    base = re.search(r"^ARG BASE_IMAGE=apache/airflow:([\d.]+)-python3\.\d+$", DOCKERFILE, re.M)
    assert base
    assert locked("requirements.txt")["apache-airflow-core"] == base.group(1)


def missing_packages(files: list[Path], installed: set[str]) -> dict[str, str]:
    """What the files import and no installed package provides: the module and one of its files."""
    imported: dict[str, str] = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            imported |= {name.partition(".")[0]: str(file.relative_to(REPOSITORY)) for name in names}
    providers = metadata.packages_distributions()
    return {
        module: file
        for module, file in imported.items()
        if module not in sys.stdlib_module_names | {"include", "sluice"}
        and installed.isdisjoint(re.sub("[._]", "-", name.lower()) for name in providers.get(module, ()))
    }


def test_the_image_has_the_packages_that_its_code_imports():
    production = locked("requirements.txt").keys()
    demo = list(REPOSITORY.glob("include/local/demo_api/*.py"))
    pipelines = [
        *REPOSITORY.glob("dags/**/*.py"),
        *REPOSITORY.glob("plugins/**/*.py"),
        *(file for file in REPOSITORY.glob("include/**/*.py") if "local" not in file.parts),
        REPOSITORY / "include/local/settings.py",
    ]
    assert missing_packages(pipelines, set(production)) == {}
    added = re.search(r"uv pip install .*requirements-dev\.txt (.+)$", stage("demo"), re.M)
    assert added
    assert missing_packages(demo, set(production)) != {}
    assert missing_packages(demo, production | set(added.group(1).split())) == {}
    assert set(added.group(1).split()) <= locked("requirements-dev.txt").keys()


# ---- the workflow


def test_the_workflow_runs_ci_on_every_python_with_few_rights():
    workflow = yaml.safe_load(WORKFLOW)
    jobs = workflow["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert workflow[True] == ["push", "pull_request"]  # YAML 1.1 reads the key `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert jobs["all"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert "bash .ci/run" in [step.get("run") for step in jobs["all"]["steps"]]
    assert all(job["timeout-minutes"] <= 60 for job in jobs.values())
    assert {step["uses"] for step in steps if "uses" in step} == {"actions/checkout@v6", "actions/setup-python@v6"}
    assert (REPOSITORY / ".ci/run").exists()


def test_every_make_target_that_is_named_exists():
    makefile = (REPOSITORY / "Makefile").read_text()
    named = set(re.findall(r"make ([a-z-]+)", COMPOSE + WORKFLOW + env_file.EXAMPLE.read_text()))
    assert named == {"env-file"}
    assert set(re.findall(r"^([a-z-]+):", makefile, re.M)) >= named

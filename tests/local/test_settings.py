"""airflow_settings.yaml becomes Airflow's environment variables."""

import json
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from include.local.settings import EXPORTED, Connection, Endpoint, Settings, export_lines
from include.local.stack import REPOSITORY

SETTINGS = Settings.read(REPOSITORY / "airflow_settings.yaml")
DATABASE = {"conn_type": "postgres", "host": "postgres", "login": "sluice", "port": 5432, "schema": "sluice"}


def test_the_repository_declares_hosts_of_the_compose_file_and_no_secrets():
    environment = SETTINGS.environment({}, {}, {})
    del environment[EXPORTED]
    variables = {name: value for name, value in environment.items() if name.startswith("AIRFLOW_VAR_")}
    connections = {name: json.loads(value) for name, value in environment.items() if name not in variables}
    assert (
        connections
        | {
            "AIRFLOW_CONN_SOURCE_API": {"conn_type": "http", "host": "demo-api", "port": 8000, "schema": "http"},
            "AIRFLOW_CONN_APP_DB": DATABASE,
            "AIRFLOW_CONN_WAREHOUSE_DB": DATABASE,
            "AIRFLOW_CONN_ANALYTICS_DB": DATABASE,
            "AIRFLOW_CONN_REDIS_METRICS": {"conn_type": "redis", "host": "valkey", "port": 6379},
            "AIRFLOW_CONN_SLACK_ALERTS": {"conn_type": "slackwebhook"},
        }
        == connections
    )  # whoever adds a source has more
    assert (
        variables
        | {
            "AIRFLOW_VAR_ALERT_WINDOW_MINUTES": "60",
            "AIRFLOW_VAR_BUSINESS_TIMEZONE": "UTC",
            "AIRFLOW_VAR_DATA_DOCS_KEEP": "500",
            "AIRFLOW_VAR_DATA_DOCS_URI": "file:///opt/airflow/data_docs",
            "AIRFLOW_VAR_HOLIDAY_COUNTRY": "US",
            "AIRFLOW_VAR_LANDING_URI": "file:///opt/airflow/landing",
            "AIRFLOW_VAR_MAX_DELETED_SHARE": "0.2",
            "AIRFLOW_VAR_MAX_QUARANTINED_SHARE": "0.05",
            "AIRFLOW_VAR_QUALITY_RETENTION_DAYS": "90",
            "AIRFLOW_VAR_ALERT_RETENTION_DAYS": "90",
            "AIRFLOW_VAR_RUN_RETENTION_DAYS": "365",
            "AIRFLOW_VAR_RUNBOOK_URL": "",
        }
        == variables
    )
    pools = json.loads(SETTINGS.pools_json())
    assert pools["source_api"] == {"slots": 4, "description": "Requests to the source API at the same time"}


def test_local_endpoints_replace_host_port_and_password_of_their_services_only():
    endpoints = {"postgres": Endpoint("127.0.0.1", 40001, "p"), "demo-api": Endpoint("127.0.0.1", 40002, "token")}
    environment = SETTINGS.environment(endpoints, {"landing_uri": "file:///here"}, {})
    local_database = DATABASE | {"host": "127.0.0.1", "port": 40001, "password": "p"}
    assert json.loads(environment["AIRFLOW_CONN_APP_DB"]) == local_database
    assert json.loads(environment["AIRFLOW_CONN_WAREHOUSE_DB"]) == local_database
    assert json.loads(environment["AIRFLOW_CONN_SOURCE_API"]) == {
        "conn_type": "http",
        "host": "127.0.0.1",
        "port": 40002,
        "password": "token",
        "schema": "http",
    }
    assert json.loads(environment["AIRFLOW_CONN_REDIS_METRICS"])["host"] == "valkey"
    assert environment["AIRFLOW_VAR_LANDING_URI"] == "file:///here"


def test_a_connection_without_a_host_is_found_by_its_id():
    webhook = Endpoint("http://127.0.0.1:40003/slack/services", None, "a/token")
    environment = SETTINGS.environment({"slack_alerts": webhook}, {}, {})
    assert json.loads(environment["AIRFLOW_CONN_SLACK_ALERTS"]) == {
        "conn_type": "slackwebhook",
        "host": "http://127.0.0.1:40003/slack/services",
        "password": "a/token",
    }


def test_what_the_person_has_set_wins():
    own = {
        "AIRFLOW_CONN_APP_DB": "postgresql://mine",
        "AIRFLOW_CONN_SLACK_ALERTS": "slackwebhook://mine",
        "AIRFLOW_VAR_MAX_DELETED_SHARE": "0.5",
    }
    assert own.keys().isdisjoint(SETTINGS.environment({}, {}, own))


def test_what_an_earlier_call_has_set_is_renewed_unless_the_person_changed_it_since():
    earlier = SETTINGS.environment({"postgres": Endpoint("127.0.0.1", 40001, "p")}, {}, {})
    environ = earlier | {"AIRFLOW_CONN_WAREHOUSE_DB": "postgresql://mine"}
    renewed = SETTINGS.environment({"postgres": Endpoint("127.0.0.1", 40009, "p")}, {}, environ)
    assert json.loads(renewed["AIRFLOW_CONN_APP_DB"])["port"] == 40009
    assert "AIRFLOW_CONN_WAREHOUSE_DB" not in renewed


def test_extra_travels_as_an_object():
    connection = Connection(conn_id="x", conn_type="http", conn_extra={"headers": {"X-Key": "k"}})
    assert json.loads(connection.to_json()) == {"conn_type": "http", "extra": {"headers": {"X-Key": "k"}}}


def test_a_misspelt_field_is_refused_by_name(tmp_path: Path):
    file = tmp_path / "airflow_settings.yaml"
    file.write_text("airflow: {pools: [{pool_name: a, pool_slots: 4}]}")
    with pytest.raises(ValidationError, match="pool_slots"):
        Settings.read(file)


def test_export_lines_survive_the_shell():
    values = {"A": 'it\'s $HOME `date` "x" \\ !', "B": "two\nlines", "C": ""}
    script = export_lines(values) + '\nprintf \'%s\\0\' "$A" "$B" "$C"'
    output = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.split("\0") == [*values.values(), ""]

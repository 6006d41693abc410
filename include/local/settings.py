"""Connections, pools and variables as `airflow_settings.yaml` declares them, in the Astro CLI's format."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue

EXPORTED = "SLUICE_LOCAL_EXPORTED"


class Endpoint(NamedTuple):
    """Where the local stack runs a service. A webhook's `host` is the URL before its token, port included."""

    host: str
    port: int | None
    password: str


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Connection(_Declared):
    """A connection; what is left empty in the file is None."""

    conn_id: str
    conn_type: str
    conn_host: str | None = None
    conn_schema: str | None = None
    conn_login: str | None = None
    conn_password: str | None = None
    conn_port: int | None = None
    conn_extra: dict[str, JsonValue] | str | None = None

    @property
    def variable(self) -> str:
        """The name of the environment variable that Airflow reads it from."""
        return f"AIRFLOW_CONN_{self.conn_id.upper()}"

    def to_json(self, endpoint: Endpoint | None = None) -> str:
        """Airflow's JSON form, host, port and password taken from `endpoint` if there is one."""
        fields: dict[str, Any] = {
            "conn_type": self.conn_type,
            "host": self.conn_host,
            "login": self.conn_login,
            "password": self.conn_password,
            "port": self.conn_port,
            "schema": self.conn_schema,
            "extra": self.conn_extra,
        }
        fields |= endpoint._asdict() if endpoint else {}
        return json.dumps({name: value for name, value in fields.items() if value not in (None, "")})


class Pool(_Declared):
    """A pool and how many task slots it has."""

    pool_name: str
    pool_slot: int
    pool_description: str = ""


class Variable(_Declared):
    """An Airflow Variable; what is not a string travels as JSON."""

    variable_name: str
    variable_value: JsonValue

    @property
    def variable(self) -> str:
        """The name of the environment variable that Airflow reads it from."""
        return f"AIRFLOW_VAR_{self.variable_name.upper()}"


class Settings(_Declared):
    """All that the file declares."""

    connections: list[Connection] = Field(default_factory=list)
    pools: list[Pool] = Field(default_factory=list)
    variables: list[Variable] = Field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. Raises pydantic's ValidationError, which names the field, if it is not of that form."""
        return cls.model_validate(yaml.safe_load(path.read_text())["airflow"])

    def pools_json(self) -> str:
        """The pools in the form that `airflow pools import` reads."""
        pools = {pool.pool_name: {"slots": pool.pool_slot, "description": pool.pool_description} for pool in self.pools}
        return json.dumps(pools, indent=2)

    def environment(
        self, endpoints: Mapping[str, Endpoint], variables: Mapping[str, str], environ: Mapping[str, str]
    ) -> dict[str, str]:
        """AIRFLOW_CONN_* and AIRFLOW_VAR_*, with local `endpoints` and local `variables` by name.

        A connection's endpoint is that of its host or, where the file names no host, of its id.

        A name that is set in `environ` already is left out, so that the person's own wins; one that still has the
        value that an earlier call gave it (EXPORTED keeps their digests) is the stack's own and is renewed.
        """
        declared = {
            connection.variable: connection.to_json(endpoints.get(connection.conn_host or connection.conn_id))
            for connection in self.connections
        }
        for variable in self.variables:
            value = variables.get(variable.variable_name, variable.variable_value)
            declared[variable.variable] = value if isinstance(value, str) else json.dumps(value)
        earlier = json.loads(environ.get(EXPORTED) or "{}")
        ours = {
            name: value
            for name, value in declared.items()
            if name not in environ or earlier.get(name) == _digest(environ[name])
        }
        return ours | {EXPORTED: json.dumps({name: _digest(value) for name, value in ours.items()})}


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:16]


def export_lines(environment: Mapping[str, str]) -> str:
    """`export NAME='value'` lines for a POSIX shell to evaluate."""
    quoted = {name: value.replace("'", "'\"'\"'") for name, value in environment.items()}
    return "\n".join(f"export {name}='{value}'" for name, value in quoted.items())

"""Airflow's plugin: the pages of Data Docs, their places in the UI, and the button on a task that leads to its page."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from sluice.data_docs import PREFIX, DataDocsLink, base_path


class _Apps:
    """Imports what the API server alone has when it asks for it: each process that runs a task loads plugins."""

    def __get__(self, plugin: object, owner: type) -> list[dict[str, Any]]:
        from sluice.ui.quality import app

        return [{"app": app, "url_prefix": PREFIX, "name": "Sluice"}]


class SluicePlugin(AirflowPlugin):
    """What Sluice adds to Airflow's UI."""

    name = "sluice"
    fastapi_apps = _Apps()
    external_views = [  # noqa: RUF012 - as Airflow declares it
        {
            "name": "Quality",
            "href": f"{base_path()}{PREFIX}/quality",
            "destination": "nav",
            "url_route": "quality",
            "nav_top_level": True,
        },
        {
            "name": "Quality",
            "href": f"{base_path()}{PREFIX}/quality/{{DAG_ID}}",
            "destination": "dag",
            "url_route": "quality-of-the-dag",
        },
    ]
    operator_extra_links = [DataDocsLink()]  # noqa: RUF012 - as Airflow declares it

"""### Alerts that still have to reach Slack, and pipelines that are late

A run that fails tells so itself, once, in `operations.messages`. This sends what could not be sent then, closes the
windows in which the same failure is only counted, and looks for pipelines whose last good run is too old.

**Each run**: *untold* writes the messages of runs whose callbacks died before they could; *lateness* reads the view
`operations.last_good_runs`; *send* posts what waits, oldest first, one message a second, to the connection
`slack_alerts`. What Slack refuses (400, 404) is marked so and never sent again; what it does not answer waits for the
next run. Without the connection alerts go to the log of whoever would have sent them. The Variable
`alert_window_minutes` (60) says how long the same failure is counted, not told again.

**When it fails** alerts wait, in `operations.messages` with the status `pending`; the next run sends them. It fails
as long as nothing gets to Slack, since nobody would hear of it otherwise: at once by a connection that leads nowhere or
a webhook that Slack no longer knows, after half an hour by a Slack that is down.

**Safe to re-run**, at any time: a message that was sent is not sent again. It works by now, not by data interval.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from sluice.alerting import lateness, send, untold
from sluice.defaults import DAG_ARGS

with DAG(
    dag_id="send_alerts",
    schedule="*/5 * * * *",
    dagrun_timeout=timedelta(minutes=30),
    is_paused_upon_creation=False,  # alerts that nobody sends are none
    tags=["alerts"],
    description="Sends the alerts that wait, and tells of pipelines that are late",
    doc_md=__doc__,
    **DAG_ARGS,
):
    untold() >> lateness() >> send()

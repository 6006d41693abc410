-- Queues what the execution rejected: one pending letter a record, whatever brings it again, with the newest payload.
-- Attempts count executions: the same one again, after a retry, is no further attempt. Of a replay nothing is queued: its
-- records have their letters, whose fetched_at must stay.
insert into operations.dead_letters as l (
  pipeline, entity, record_key, record_version, stage, payload, payload_raw, error, landing_ref, execution, fetched_at
)
select distinct on (r.record_key)
  e.pipeline, e.entity, r.record_key, r.record_version, r.stage, r.payload, r.payload_raw, r.error, r.landing_ref, e.execution, e.fetched_at
from staging.{{ staging.rejected }} r
cross join (select * from operations.executions where execution = '{{ execution }}' and mode <> 'replay') as e
order by r.record_key, r.page desc, r.position desc
on conflict (entity, record_key) where status = 'pending' do update set
  pipeline = excluded.pipeline,
  record_version = excluded.record_version,
  stage = excluded.stage,
  payload = excluded.payload,
  payload_raw = excluded.payload_raw,
  error = excluded.error,
  attempts = l.attempts + (l.execution <> excluded.execution)::int,
  landing_ref = excluded.landing_ref,
  execution = excluded.execution,
  fetched_at = excluded.fetched_at
  where excluded.fetched_at >= l.fetched_at;

{#- Publishes one execution of one entity, in one transaction that the caller opens and commits (READ COMMITTED).

    in    contract           what the entity is (include/contracts/contract.py)
          staging            the names of the execution's staging tables
          execution          its id
          mode               'snapshot', 'delta' or 'replay' (of dead letters)
          max_deleted_share  the share of the live rows that a snapshot may delete
          lock_seconds       how long to wait for another publish of the entity
    reads   staging.*, operations.executions
    writes  app.<entity>, its children and history, operations.dead_letters, operations.sync_log,
            operations.loaded_files
    gives   one row: the sync_log row, `letters_superseded` and `unreadable_new`

    Readers see all of it or none. What it refuses it raises, with SQLSTATE
    SL001 published already, SL002 overtaken by a later snapshot, SL003 would delete too much, SL004 the accounting does not hold.
    Split into statements by the caller: no parameters, so that a per cent sign is only that. -#}
{%- set key = contract.key -%}
{%- set versioned = contract.version is not none -%}
{%- set snapshot = mode == 'snapshot' -%}
{%- set replay = mode == 'replay' -%}
{%- set stable = contract.stable -%}
{%- set tombstones = contract.deleted is not none -%}
{%- set lives = 'and not s.is_deleted' if tombstones else '' -%}
{%- set same_version = 's.updated_at = t.updated_at' if versioned else 'true' -%}
{%- macro list(names, alias='') -%}
  {%- for name in names %}{{ alias ~ '.' if alias }}{{ name }}{{ ', ' if not loop.last }}{% endfor -%}
{%- endmacro -%}
{%- macro same_key(a, b) -%}
  {%- for name in key %}{{ a }}.{{ name }} = {{ b }}.{{ name }}{{ ' and ' if not loop.last }}{% endfor -%}
{%- endmacro -%}
{#- the key as text, as dead letters carry it -#}
{%- macro key_text(alias) -%}
  {%- if key | length == 1 %}{{ alias }}.{{ key[0] }}::text{% else %}jsonb_build_array({{ list(key, alias) }})::text{% endif -%}
{%- endmacro -%}
{#- the parts of a letter's key in their columns' types; null where the letter has no such key -#}
{%- macro letter_key(letter) -%}
  {%- for spec in contract.fields if spec.name in key -%}
    {%- set part = letter ~ '.record_key' if key | length == 1 else '(' ~ letter ~ '.record_key::jsonb ->> ' ~ key.index(spec.name) ~ ')' -%}
    {%- set form = {'uuid': '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$', 'bigint': '^-?[0-9]{1,18}$', 'text': '^'}[spec.sql_type] -%}
    case when {{ letter }}.record_key not like 'sha256:%' and {{ part }} ~ '{{ form }}' then {{ part }}::{{ spec.sql_type }} end as {{ spec.name }}
    {{- ', ' if not loop.last }}
  {%- endfor -%}
{%- endmacro -%}
{#- a record of that version and fetch takes the letter's place -#}
{%- macro outdates(version, fetched_at, letter='l') -%}
  {%- if versioned -%}
    ({{ version }} > {{ letter }}.record_version
      or ({{ letter }}.record_version is null or {{ version }} = {{ letter }}.record_version) and {{ fetched_at }} > {{ letter }}.fetched_at)
  {%- else -%}
    {{ fetched_at }} > {{ letter }}.fetched_at
  {%- endif -%}
{%- endmacro -%}
set local jit = off;
set local work_mem = '128MB';
set local application_name = 'sluice {{ execution }}';
set local lock_timeout = '{{ lock_seconds }}s';
select pg_advisory_xact_lock(hashtextextended('sluice.{{ contract.name }}', 0));
set local lock_timeout = 0;

create temporary table this_execution on commit drop as
select *
  from operations.executions
 where execution = '{{ execution }}';

do $$
declare
  overtaken_by operations.sync_log;
begin
  if exists (select from operations.sync_log where execution = '{{ execution }}') then
    raise exception using errcode = 'SL001', message = '{{ contract.name }}: execution {{ execution }} is published already';
  end if;
{%- if not replay %}
  select s.*
    into overtaken_by
    from operations.sync_log s
    join this_execution e on s.fetched_at > e.fetched_at
   where s.entity = '{{ contract.name }}' and s.mode = 'snapshot'
   order by s.fetched_at desc
   limit 1;
  if found then
    raise exception using errcode = 'SL002', message = format(
      '{{ contract.name }}: run %s has published a snapshot that began later (%s): this execution publishes nothing, the next run asks again',
      overtaken_by.run_id, overtaken_by.fetched_at);
  end if;
{%- endif %}
end
$$;

{% if replay -%}
-- A letter competes as what it is: fetched when it was.
update staging.{{ staging.records }} s
   set fetched_at = m.fetched_at
  from staging.{{ staging.letters }} m
 where m.page = s.page and m.position = s.position;
{% endif %}
-- The columns that plans below depend on; the rest would take as long again.
analyze staging.{{ staging.records }} (page, position, fetched_at, {{ list(key) }}{{ ', updated_at' if versioned }});
{% for children in contract.children.values() -%}
analyze staging.{{ staging.children(children) }};
{% endfor -%}
analyze staging.{{ staging.rejected }};

-- Of the records of one key the newer version wins, at a tie the later position.
create temporary table losers on commit drop as
select page, position
  from (
    select
      page,
      position,
      row_number() over (partition by {{ list(key) }} order by {{ 'updated_at desc, ' if versioned }}page desc, position desc) as rank
    from staging.{{ staging.records }}
    where ({{ list(key) }}) in (
      select {{ list(key) }}
        from staging.{{ staging.records }}
       group by {{ list(key) }}
      having count(*) > 1
    )
  ) as ranked
 where rank > 1;
analyze losers;

create temporary table verdicts on commit drop as

with
{%- for name, children in contract.children.items() %}
staged_{{ name }} as (
  select page, position, array_agg(row({{ list(children.columns) }}) order by {{ list(children.key) }}) as siblings
    from staging.{{ staging.children(children) }}
   group by page, position
),
current_{{ name }} as (
  select {{ list(children.parent, 'c') }}, array_agg(row({{ list(children.columns, 'c') }}) order by {{ list(children.key, 'c') }}) as siblings
    from app.{{ children.table }} c
   where exists (
     select from staging.{{ staging.records }} s
      where {% for name in key %}s.{{ name }} = c.{{ children.parent[loop.index0] }}{{ ' and ' if not loop.last }}{% endfor %}
   )
   group by {{ list(children.parent, 'c') }}
),
{%- endfor %}
compared as (
  select
    s.page,
    s.position,
    s.fetched_at,
    e.trust_source,
    t.fetched_at as row_fetched_at,
    t.deleted_at,
    t.{{ key[0] }} is null as is_new,
{%- if tombstones %}
    s.is_deleted as is_tombstone,
    -- A row that a tombstone deleted carries the tombstone's version and fetch; one that a snapshot lacks keeps its own.
    t.deleted_at is not null and t.deleted_at = t.fetched_at as is_entombed,
    {{ same_version }} as is_same_version,
{%- endif %}
    {{ 's.updated_at > t.updated_at' if versioned else 'false' }} as is_newer,
    {{ 's.updated_at < t.updated_at' if versioned else 'false' }} as is_older,
    {{ same_version }}
    {%- if contract.content %}
      and ({{ list(contract.content, 's') }}) is not distinct from ({{ list(contract.content, 't') }})
    {%- endif %}
    {%- for name in contract.children %}
      and staged_{{ name }}.siblings is not distinct from current_{{ name }}.siblings
    {%- endfor %} as is_same
  from staging.{{ staging.records }} s
  cross join this_execution e
  left join {{ contract.table }} t on {{ same_key('t', 's') }}
  {%- for name, children in contract.children.items() %}
  left join staged_{{ name }} on staged_{{ name }}.page = s.page and staged_{{ name }}.position = s.position
  left join current_{{ name }} on {% for name_of_key in key %}current_{{ name }}.{{ children.parent[loop.index0] }} = s.{{ name_of_key }}{{ ' and ' if not loop.last }}{% endfor %}
  {%- endfor %}
  where not exists (select from losers where losers.page = s.page and losers.position = s.position)
)
select
  page,
  position,
  case
{%- if tombstones %}
    when is_tombstone and (is_new or deleted_at is not null and is_same_version) then 'unchanged'
{%- endif %}
    when is_new then 'inserted'
    when deleted_at is not null {{ 'and not (is_tombstone or is_entombed) ' if tombstones -}}
      then case when fetched_at > deleted_at then 'updated' else 'stale' end
    when is_same {{ 'and not (is_tombstone or is_entombed) ' if tombstones }}then 'unchanged'
    when trust_source then case when fetched_at > row_fetched_at then 'updated' else 'stale' end
    when is_newer then 'updated'
    when is_older then 'stale'
    when fetched_at > row_fetched_at then 'updated'
    else 'stale'
  end as verdict,
  is_older and row_fetched_at < fetched_at and deleted_at is null as regressed
from compared;
-- Where few rows are updated, plans that expect one look for it again and again: by this, not by reading all verdicts.
create unique index on verdicts (page, position) where verdict = 'updated';
analyze verdicts;

do $$
begin
  raise notice '{{ contract.name }}: writing, % records compared', (select count(*) from verdicts);
end
$$;

{% if snapshot -%}
-- Rows that the snapshot no longer has. Quarantined keys are present; a key that cannot be read may be any row's.
create temporary table unreadable_new on commit drop as
select distinct r.record_key
  from staging.{{ staging.rejected }} r
 where not r.key_readable
   and not exists (
     select
       from (
         select unreadable_keys
           from operations.sync_log
          where entity = '{{ contract.name }}' and mode = 'snapshot'
          order by id desc
          limit 1
       ) as previous
      where r.record_key = any (previous.unreadable_keys)
   );

create temporary table absent on commit drop as
select
  {{ list(key, 't') }},
{%- if stable %}
  true as is_deleted
{%- else %}
  -- Pages that shift skip live rows: it takes a second snapshot, begun after the first was published, to say that one is gone.
  coalesce(
    e.started_at > (
      select max(s.synced_at)
        from operations.sync_log s
       where s.entity = '{{ contract.name }}' and s.mode = 'snapshot' and s.fetched_at = t.absent_since
    ),
    false
  ) as is_deleted
{%- endif %}
  from {{ contract.table }} t
 cross join this_execution e
 where t.deleted_at is null
   and t.fetched_at < e.fetched_at
   and not exists (select from staging.{{ staging.records }} s where {{ same_key('s', 't') }})
   and not exists (select from staging.{{ staging.rejected }} r where r.key_readable and r.record_key = {{ key_text('t') }})
   and not exists (select from unreadable_new);

do $$
declare
  losing bigint;
  live bigint;
begin
  if (select allow_deletes from this_execution) then
    return;
  end if;
  select count(*) into losing from absent where is_deleted;
  select count(*) into live from {{ contract.table }} where deleted_at is null;
  if live >= 10 and losing > {{ max_deleted_share }} * live then
    raise exception using errcode = 'SL003', message = format(
      '{{ contract.name }}: the snapshot lacks %s of %s live rows, more than the share of {{ max_deleted_share }} that may go: nothing is published. '
      'If the source is right, run again with allow_deletes; the share is the Variable max_deleted_share', losing, live);
  end if;
end
$$;
{%- endif %}

{% if contract.history -%}
-- The version that an update replaces goes to history; a correction at an equal version replaces in place.
insert into {{ contract.table }}_history ({{ list(contract.columns) }}, updated_at, fetched_at, change_seq)
select {{ list(contract.columns, 't') }}, t.updated_at, t.fetched_at, nextval('app.change_seq')
  from verdicts v
  join staging.{{ staging.records }} s on s.page = v.page and s.position = v.position
  join {{ contract.table }} t on {{ same_key('t', 's') }}
 where v.verdict = 'updated'
   and t.updated_at <> s.updated_at
{%- if tombstones %}
   and t.deleted_at is distinct from t.fetched_at  -- what an entombed row shows is not the version that it carries
{%- endif %}
on conflict ({{ list(key) }}, updated_at) do update set
  {%- for name in contract.content %}
  {{ name }} = excluded.{{ name }},
  {%- endfor %}
  fetched_at = excluded.fetched_at,
  change_seq = excluded.change_seq;
{%- endif %}

update {{ contract.table }} t
   set
  {%- for name in contract.content %}
       {{ name }} = s.{{ name }},
  {%- endfor %}
       updated_at = s.updated_at,
       fetched_at = s.fetched_at,
       absent_since = null,
       deleted_at = null,
       synced_at = now(),
       change_seq = nextval('app.change_seq')
  from verdicts v
  join staging.{{ staging.records }} s on s.page = v.page and s.position = v.position
 where v.verdict = 'updated' and {{ same_key('t', 's') }} {{ lives }};
{%- if tombstones %}

-- A tombstone leaves the row what it was, as a deleted one of the tombstone's version.
update {{ contract.table }} t
   set updated_at = s.updated_at,
       fetched_at = s.fetched_at,
       absent_since = null,
       deleted_at = s.fetched_at,
       synced_at = now(),
       change_seq = nextval('app.change_seq')
  from verdicts v
  join staging.{{ staging.records }} s on s.page = v.page and s.position = v.position
 where v.verdict = 'updated' and {{ same_key('t', 's') }} and s.is_deleted;
{%- endif %}

insert into {{ contract.table }} ({{ list(contract.columns) }}, updated_at, fetched_at, change_seq)
select {{ list(contract.columns, 's') }}, s.updated_at, s.fetched_at, nextval('app.change_seq')
  from verdicts v
  join staging.{{ staging.records }} s on s.page = v.page and s.position = v.position
 where v.verdict = 'inserted'
 order by {{ list(key, 's') }};  -- in the order of the primary key, whose pages are then filled one after the other

-- A record that is seen is not absent; a delta that asked for it knows its row to be right as of its own fetch.
update {{ contract.table }} t
   set absent_since = null{% if mode == 'delta' %},
       fetched_at = s.fetched_at{% endif %}
  from verdicts v
  join staging.{{ staging.records }} s on s.page = v.page and s.position = v.position
 cross join this_execution e
 where v.verdict = 'unchanged'
   and {{ same_key('t', 's') }} {{ lives }}
   and s.fetched_at > t.fetched_at
{%- if mode != 'delta' %}
   and t.absent_since < s.fetched_at;
{%- else %}
   and {{ '(e.since is null or s.updated_at >= e.since)' if versioned else 'true' }};
{%- endif %}
{% for name, children in contract.children.items() %}
delete from app.{{ children.table }} c
 using verdicts v
  join staging.{{ staging.records }} s on s.page = v.page and s.position = v.position
 where v.verdict = 'updated' {{ lives }}
   and {% for name in key %}c.{{ children.parent[loop.index0] }} = s.{{ name }}{{ ' and ' if not loop.last }}{% endfor %};

insert into app.{{ children.table }} ({{ list(children.parent) }}, {{ list(children.columns) }})
select {{ list(key, 's') }}, {{ list(children.columns, 'c') }}
  from verdicts v
  join staging.{{ staging.records }} s on s.page = v.page and s.position = v.position
  join staging.{{ staging.children(children) }} c on c.page = s.page and c.position = s.position
 where v.verdict in ('inserted', 'updated') {{ lives }};
{% endfor %}
{%- if contract.history %}
-- Valid versions that came too late, or lost within this execution: the table does not show them, history does.
insert into {{ contract.table }}_history as h ({{ list(contract.columns) }}, updated_at, fetched_at, change_seq)
select distinct on ({{ list(key, 's') }}, s.updated_at)
       {{ list(contract.columns, 's') }}, s.updated_at, s.fetched_at, nextval('app.change_seq')
  from (
    select page, position from losers
    union all
    select page, position from verdicts where verdict = 'stale'
  ) as late
  join staging.{{ staging.records }} s on s.page = late.page and s.position = late.position
  join {{ contract.table }} t on {{ same_key('t', 's') }} and t.updated_at <> s.updated_at
{%- if tombstones %}
 where not s.is_deleted
{%- endif %}
 order by {{ list(key, 's') }}, s.updated_at, s.page desc, s.position desc
on conflict ({{ list(key) }}, updated_at) do update set
  {%- for name in contract.content %}
  {{ name }} = excluded.{{ name }},
  {%- endfor %}
  fetched_at = excluded.fetched_at,
  change_seq = excluded.change_seq
  where excluded.fetched_at > h.fetched_at
    and ({{ list(contract.content, 'excluded') }}) is distinct from ({{ list(contract.content, 'h') }});

delete from {{ contract.table }}_history h
 using verdicts v
  join staging.{{ staging.records }} s on s.page = v.page and s.position = v.position
 where v.verdict = 'updated' and {{ same_key('h', 's') }} and h.updated_at = s.updated_at {{ lives }};
{%- endif %}

{% if snapshot -%}
update {{ contract.table }} t
   set deleted_at = e.fetched_at,
       synced_at = now(),
       change_seq = nextval('app.change_seq')
  from absent a
 cross join this_execution e
 where a.is_deleted and {{ same_key('t', 'a') }};
{%- if not stable %}

update {{ contract.table }} t
   set absent_since = e.fetched_at
  from absent a
 cross join this_execution e
 where not a.is_deleted and t.absent_since is null and {{ same_key('t', 'a') }};
{%- endif %}
{%- endif %}

{% if replay -%}
-- What was published, or needed it no more, is resolved; what failed again keeps its letter, with the new error. A letter
-- that has changed since it was chosen is another one.
update operations.dead_letters l
   set status = case when v.verdict in ('inserted', 'updated', 'unchanged') then 'replayed' else 'superseded' end,
       resolved_at = now()
  from staging.{{ staging.letters }} m
  left join verdicts v on v.page = m.page and v.position = m.position
 where l.id = m.letter
   and l.status = 'pending'
   and l.fetched_at = m.fetched_at
   and not exists (select from staging.{{ staging.rejected }} r where r.page = m.page and r.position = m.position);

update operations.dead_letters l
   set stage = r.stage,
       error = r.error,
       record_version = r.record_version,
       attempts = l.attempts + (l.execution <> '{{ execution }}')::int,
       execution = '{{ execution }}'
  from staging.{{ staging.letters }} m
  join staging.{{ staging.rejected }} r on r.page = m.page and r.position = m.position
 where l.id = m.letter and l.status = 'pending' and l.fetched_at = m.fetched_at;
{%- else -%}
{% include 'sync/queue_dead_letters.sql' %}
{%- endif %}

create temporary table letters on commit drop as
select l.id as letter, l.record_key, l.record_version, l.fetched_at, {{ letter_key('l') }}
  from operations.dead_letters l
 where l.entity = '{{ contract.name }}' and l.status = 'pending';
analyze letters;

create temporary table superseded on commit drop as
select l.letter
  from letters l
  join {{ contract.table }} t on {{ same_key('t', 'l') }}
 where {{ outdates('t.updated_at', 't.fetched_at') }}
union
select l.letter
  from letters l
  join staging.{{ staging.records }} s on {{ same_key('s', 'l') }}
 cross join this_execution e
 where {{ outdates('s.updated_at', 's.fetched_at') }}
    or e.trust_source and s.fetched_at > l.fetched_at
{%- if snapshot and stable %}
union
select l.letter
  from letters l
  join this_execution e on l.fetched_at < e.fetched_at
 where not exists (select from staging.{{ staging.records }} s where {{ same_key('s', 'l') }})
   and not exists (select from staging.{{ staging.rejected }} r where r.record_key = l.record_key)
{%- endif %};

update operations.dead_letters l
   set status = 'superseded', resolved_at = now()
  from superseded
 where l.id = superseded.letter;

create temporary table published on commit drop as
select
  e.*,
  previous.watermark as watermark_in_force,
  seen.newest as newest_seen,
  counted.*,
  (select count(*) from losers) as duplicate,
  (select count(*) from staging.{{ staging.rejected }}) as quarantined,
  {{ '(select count(*) from absent where is_deleted)' if snapshot else '0::bigint' }} as deleted,
  (select count(*) from superseded) as letters_superseded,
  {{ '(select count(*) from unreadable_new)' if snapshot else '0::bigint' }} as unreadable_new,
  (select coalesce(array_agg(distinct record_key), '{}') from staging.{{ staging.rejected }} where not key_readable) as unreadable_keys
from this_execution e
left join lateral (
  select watermark
    from operations.sync_log
   where entity = '{{ contract.name }}'
   order by id desc
   limit 1
) as previous on true
cross join (
  select
    count(*) filter (where verdict = 'inserted') as inserted,
    count(*) filter (where verdict = 'updated') as updated,
    count(*) filter (where verdict = 'unchanged') as unchanged,
    count(*) filter (where verdict = 'stale') as stale,
    count(*) filter (where regressed and verdict = 'stale') as regressed
  from verdicts
) as counted
cross join (
{%- if versioned %}
  select greatest(
    (select max(updated_at) from staging.{{ staging.records }}),
    (select max(record_version) from staging.{{ staging.rejected }})
  ) as newest
{%- else %}
  select (select max(fetched_at) from this_execution where records_read > 0) as newest
{%- endif %}
) as seen;

do $$
declare
  p published;
begin
  select * into p from published;
  if p.records_read is distinct from p.inserted + p.updated + p.unchanged + p.stale + p.duplicate + p.quarantined then
    raise exception using errcode = 'SL004', message = format(
      '{{ contract.name }}: %s records were read, but %s inserted + %s updated + %s unchanged + %s stale + %s duplicate + %s quarantined are not as many: '
      'nothing is published. Clear {{ contract.name }}.{{ 'choose' if replay else 'extract' }} to begin anew',
      p.records_read, p.inserted, p.updated, p.unchanged, p.stale, p.duplicate, p.quarantined);
  end if;
end
$$;

-- The watermark moves only forward, only with the data, and only by a fetch that left no gap behind it.
insert into operations.sync_log (
  execution, entity, mode, run_id, since, fetched_at, watermark, records_read, inserted, updated, unchanged, stale, duplicate,
  quarantined, deleted, regressed, unreadable_keys, fields, drift, started_at
)
select
  execution, entity, mode, run_id, since, fetched_at,
  case
{%- if replay %}
    when true then watermark_in_force
{%- endif %}
    when newest_seen is null and until is null or not settled then watermark_in_force
    when reset_watermark then least(coalesce(until, newest_seen), fetched_at)
{%- if snapshot %}
    when watermark_in_force is null then {{ 'least(newest_seen, fetched_at)' if stable else 'null' }}
{%- else %}
    when since <= coalesce(
      watermark_in_force - interval '{{ contract.lookback.total_seconds() | int }} seconds',
      timestamptz '{{ contract.initial_watermark.isoformat() }}'
    ) then greatest(watermark_in_force, least(coalesce(until, newest_seen), fetched_at))
{%- endif %}
    else watermark_in_force
  end,
  records_read, inserted, updated, unchanged, stale, duplicate, quarantined, deleted, regressed, unreadable_keys, fields, drift, started_at
from published;
{%- if contract.files is not none and not replay %}

update operations.loaded_files
   set status = case when records is null then 'passed over' else 'loaded' end,
       loaded_at = now()
 where execution = '{{ execution }}' and status = 'pending';
{%- endif %}

select s.*, p.letters_superseded, p.unreadable_new
  from operations.sync_log s
  join published p on p.execution = s.execution;

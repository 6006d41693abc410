{#- Writes what is derived of customers, in one transaction that the caller opens and commits (READ COMMITTED).

    in      as_of         the time, ISO 8601 with a zone, at which lifecycle stages are told
            geocoder      whose answers say where an address lies
            parts, needs  the columns of an address that it reads, and those of which it needs one
            dry_run       count what would change, write nothing
            lock_seconds  how long to wait for a publish of customers
    reads   app.customers, app.orders, operations.geocodes
    writes  app.customers: the rows that change, with a new change_seq, under the lock that publish takes
    gives   one row, one column: the counts as jsonb

    Deleted customers stay as they were. What the source says (updated_at, fetched_at) is not touched. -#}
{%- from 'enrichment/address.sql' import address_key, has_address -%}
set local jit = off;
set local work_mem = '128MB';
set local application_name = 'sluice customer_enrichment';
set local lock_timeout = '{{ lock_seconds }}s';
select pg_advisory_xact_lock(hashtextextended('sluice.customers', 0));
set local lock_timeout = 0;

create temporary table enriched on commit drop as
with spent as (
  select customer_id, sum(total) as total, count(*) as orders
    from app.orders
   where deleted_at is null and status <> 'cancelled'
   group by customer_id
)
select
  c.id,
  {{ has_address(needs, 'c') }} as has_address,
  g.latitude,
  g.longitude,
  told.*,
  (g.latitude, g.longitude) is distinct from (c.latitude, c.longitude) as is_moved,
  told.lifecycle_stage is distinct from c.lifecycle_stage as is_restaged,
  (told.lifetime_value, told.total_orders) is distinct from (c.lifetime_value, c.total_orders) as is_revalued
from app.customers c
left join spent s on s.customer_id = c.id
left join operations.geocodes g
  on g.geocoder = '{{ geocoder }}' and g.address = {{ address_key(parts, 'c') }} and {{ has_address(needs, 'c') }}
cross join lateral (
  select
    case
      when timestamptz '{{ as_of }}' - c.signup_date < interval '7 days' then 'new'
      when timestamptz '{{ as_of }}' - c.signup_date < interval '30 days' then 'active'
      when timestamptz '{{ as_of }}' - c.signup_date < interval '90 days' then 'engaged'
      else 'dormant'
    end as lifecycle_stage,
    -- A sum that the column cannot hold is unknown: one absurd customer must not keep the others from theirs.
    case when abs(coalesce(s.total, 0)) < 1e14 then coalesce(s.total, 0) end as lifetime_value,
    coalesce(s.orders, 0) as total_orders
) as told
where c.deleted_at is null;
analyze enriched (id, is_moved, is_restaged, is_revalued);

{% if not dry_run -%}
update app.customers c
   set latitude = e.latitude,
       longitude = e.longitude,
       lifecycle_stage = e.lifecycle_stage,
       lifetime_value = e.lifetime_value,
       total_orders = e.total_orders,
       enriched_at = timestamptz '{{ as_of }}',
       change_seq = nextval('app.change_seq')
  from enriched e
 where c.id = e.id and (e.is_moved or e.is_restaged or e.is_revalued);
{%- endif %}

select jsonb_build_object(
  'customers', count(*),
  'changed', count(*) filter (where is_moved or is_restaged or is_revalued),
  'moved', count(*) filter (where is_moved),
  'restaged', count(*) filter (where is_restaged),
  'revalued', count(*) filter (where is_revalued),
  'without_address', count(*) filter (where has_address is not true),
  'without_location', count(*) filter (where has_address and latitude is null),
  'without_lifetime_value', count(*) filter (where lifetime_value is null)
)
from enriched;

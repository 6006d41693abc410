{#- Builds the members of the customer, product and location dimensions that a load changes.

    reads   raw, warehouse, affected_customers, affected_products
    makes   dim_customer        whole chains of versions of the affected customers
            dim_product         the affected products that are there, or that an order names
            dim_location        places that are new
            gone_locations      keys of places where nobody lives or lived any more
            next_dim_customer, next_dim_product, next_dim_location: views of what readers will see

    A key lives as long as its natural key does: of a version its customer and the time from which it is valid. -#}
{%- from 'warehouse/expressions.sql' import stage, is_sale -%}
{% include 'warehouse/step.sql' %}

create temporary table versions on commit drop as
with seen as (
  select id, name, email, segment, country, state, city, zip_code, updated_at
    from raw.customers
  union all
  -- What history has of later than the current row (it was returned, or restored) was undone: it is no version.
  select h.id, h.name, h.email, h.segment, h.country, h.state, h.city, h.zip_code, h.updated_at
    from raw.customers_history h
    join raw.customers c on c.id = h.id and h.updated_at < c.updated_at
),
placed as (
  select
    s.*,
    -- The hash of each part, so that no two places read the same; none of somebody who gives no place.
    case
      when coalesce(s.country, s.state, s.city, s.zip_code) is not null then md5(
        coalesce(md5(s.country), '-') || coalesce(md5(s.state), '-') || coalesce(md5(s.city), '-')
        || coalesce(md5(s.zip_code), '-')
      )::uuid
    end as natural_key
  from (
    select
      id, name, email, segment, nullif(country, '') as country, nullif(state, '') as state, nullif(city, '') as city,
      nullif(zip_code, '') as zip_code, updated_at
    from seen
    where id in (select customer_id from {{ build('affected_customers') }})
  ) as s
),
compared as (
  select
    p.*,
    row_number() over versions = 1 as is_first,
    (name, email, segment, natural_key) is distinct from (
      lag(name) over versions, lag(email) over versions, lag(segment) over versions, lag(natural_key) over versions
    ) as is_changed
  from placed p
  window versions as (partition by id order by updated_at)
)
select
  id as customer_id,
  name,
  email,
  segment,
  country,
  state,
  city,
  zip_code,
  natural_key,
  case when is_first then timestamptz '0001-01-01 00:00:00+00' else updated_at end as valid_from,
  lead(updated_at, 1, timestamptz '9999-12-31 00:00:00+00') over (partition by id order by updated_at) as valid_to
from compared
where is_first or is_changed;
analyze versions;

create unlogged table {{ build('dim_location') }} as
select nextval('warehouse.location_key') as location_key, country, state, city, zip_code, natural_key
  from (
    select distinct country, state, city, zip_code, natural_key
      from versions v
     where natural_key is not null
       and not exists (select from warehouse.dim_location l where l.natural_key = v.natural_key)
  ) as places;
analyze {{ build('dim_location') }};

create unlogged table {{ build('dim_customer') }} as
select
  coalesce(known.customer_key, nextval('warehouse.customer_key')) as customer_key,
  built.*
from (
  select
    v.customer_id,
    v.name,
    v.email,
    v.segment,
    c.signup_date,
    case
      when v.valid_to = timestamptz '9999-12-31 00:00:00+00' then {{ stage('l.as_of', 'c.signup_date') }}
      else {{ stage('v.valid_to', 'c.signup_date') }}
    end as lifecycle_stage,
    coalesce(live.location_key, made.location_key, -1) as location_key,
    v.valid_from,
    v.valid_to,
    v.valid_to = timestamptz '9999-12-31 00:00:00+00' as is_current,
    false as is_inferred,
    c.deleted_at
  from versions v
  join raw.customers c on c.id = v.customer_id
  cross join {{ build('load') }} l
  left join warehouse.dim_location live on live.natural_key = v.natural_key
  left join {{ build('dim_location') }} made on made.natural_key = v.natural_key
  union all
  select
    a.customer_id, null, null, null, null, null, -1, timestamptz '0001-01-01 00:00:00+00',
    timestamptz '9999-12-31 00:00:00+00', true, true, null
  from {{ build('affected_customers') }} a
  where not exists (select from raw.customers c where c.id = a.customer_id)
    and exists (
      select
        from raw.orders o
        join raw.order_items i on i.order_id = o.id
       where o.customer_id = a.customer_id and {{ is_sale('o') }}
    )
) as built
left join warehouse.dim_customer known
  on known.customer_id = built.customer_id and known.valid_from = built.valid_from;
analyze {{ build('dim_customer') }};

create unlogged table {{ build('dim_product') }} as
select
  coalesce(known.product_key, nextval('warehouse.product_key')) as product_key,
  built.*
from (
  select p.id as product_id, p.name, p.category, p.brand, p.sku, false as is_inferred
    from raw.products p
   where p.id in (select product_id from {{ build('affected_products') }})
  union all
  select a.product_id, null, null, null, null, true
    from {{ build('affected_products') }} a
   where not exists (select from raw.products p where p.id = a.product_id)
     and exists (
       select
         from raw.order_items i
         join raw.orders o on o.id = i.order_id
        where i.product_id = a.product_id and {{ is_sale('o') }}
     )
) as built
left join warehouse.dim_product known on known.product_id = built.product_id;
analyze {{ build('dim_product') }};

create view {{ build('next_dim_customer') }} as
select
  customer_key, customer_id, name, email, segment, signup_date, lifecycle_stage, location_key, valid_from, valid_to,
  is_current, is_inferred, deleted_at
from warehouse.dim_customer d
where not exists (select from {{ build('affected_customers') }} a where a.customer_id = d.customer_id)
union all
select
  customer_key, customer_id, name, email, segment, signup_date, lifecycle_stage, location_key, valid_from, valid_to,
  is_current, is_inferred, deleted_at
from {{ build('dim_customer') }};

create view {{ build('next_dim_product') }} as
select product_key, product_id, name, category, brand, sku, is_inferred
  from warehouse.dim_product d
 where not exists (select from {{ build('affected_products') }} a where a.product_id = d.product_id)
union all
select product_key, product_id, name, category, brand, sku, is_inferred from {{ build('dim_product') }};

create unlogged table {{ build('gone_locations') }} as
select distinct d.location_key
  from {{ build('affected_customers') }} a
  join warehouse.dim_customer d on d.customer_id = a.customer_id
 where d.location_key <> -1
   and not exists (select from {{ build('next_dim_customer') }} n where n.location_key = d.location_key);
analyze {{ build('gone_locations') }};

create view {{ build('next_dim_location') }} as
select location_key, country, state, city, zip_code, natural_key
  from warehouse.dim_location d
 where not exists (select from {{ build('gone_locations') }} g where g.location_key = d.location_key)
union all
select location_key, country, state, city, zip_code, natural_key from {{ build('dim_location') }};

{#- Merges what a load has built into the tables that people read, in one transaction that the caller opens and commits.

    in      needs           a table of the step before, and that step's name
            first_year,     those of the calendar that are kept without facts
            last_year
            lock_seconds    how long to wait for another publish
    reads   warehouse_build
    writes  warehouse
    gives   one row: that of load_log

    Readers see all of it or none, and wait for nothing: rows are written where they differ, no table is replaced. Raw
    may have gone on meanwhile: load_log has the numbers with which the load began. What it refuses it raises, as SQLSTATE
    SL011 loaded already, SL012 another load was published since this one began, SL014 the step before has not been done. -#}
set local jit = off;
set local work_mem = '128MB';
set local lock_timeout = '{{ lock_seconds }}s';
select pg_advisory_xact_lock(hashtextextended('sluice.warehouse', 0));
set local lock_timeout = 0;

do $$
declare
  newest warehouse.load_log;
begin
  if exists (select from warehouse.load_log where load = '{{ load }}') then
    raise exception using errcode = 'SL011', message = 'load {{ load }} is published already: there is nothing to do';
  end if;
  if to_regclass('{{ build('load') }}') is null or to_regclass('{{ build(needs[0]) }}') is null then
    raise exception using errcode = 'SL014', message = 'load {{ load }}: publish needs what {{ needs[1] }} builds, which is not there: clear {{ needs[1] }}';
  end if;
  if not exists (select from {{ build('load') }}) then
    raise exception using errcode = 'SL014', message = 'load {{ load }}: its tables were emptied by a crash of the database: clear begin';
  end if;
  select * into newest from warehouse.load_log order by id desc limit 1;
  if newest.load is distinct from (select base from {{ build('load') }}) then
    raise exception using errcode = 'SL012', message = format(
      'load {{ load }}: run %s has published load %s since this one began: clear begin', newest.run_id, newest.load);
  end if;
end
$$;

insert into warehouse.dim_date as d
select * from {{ build('dim_date') }}
on conflict (date_key) do update set
  is_weekend = excluded.is_weekend,
  is_holiday = excluded.is_holiday
  where (d.is_weekend, d.is_holiday) is distinct from (excluded.is_weekend, excluded.is_holiday);

insert into warehouse.dim_location (location_key, country, state, city, zip_code, natural_key)
select location_key, country, state, city, zip_code, natural_key from {{ build('dim_location') }};

insert into warehouse.dim_product as d (product_key, product_id, name, category, brand, sku, is_inferred)
select product_key, product_id, name, category, brand, sku, is_inferred from {{ build('dim_product') }}
on conflict (product_key) do update set
  name = excluded.name,
  category = excluded.category,
  brand = excluded.brand,
  sku = excluded.sku,
  is_inferred = excluded.is_inferred
  where (d.name, d.category, d.brand, d.sku, d.is_inferred)
        is distinct from (excluded.name, excluded.category, excluded.brand, excluded.sku, excluded.is_inferred);

delete from warehouse.dim_product d
 using {{ build('affected_products') }} a
 where d.product_id = a.product_id
   and not exists (select from {{ build('dim_product') }} b where b.product_key = d.product_key);

-- Versions whose bounds move are written anew, under the same key: an update would meet its neighbour half-way.
delete from warehouse.dim_customer d
 using {{ build('affected_customers') }} a
 where d.customer_id = a.customer_id
   and not exists (
     select
       from {{ build('dim_customer') }} b
      where b.customer_key = d.customer_key and b.valid_from = d.valid_from and b.valid_to = d.valid_to
   );

update warehouse.dim_customer d
   set name = b.name,
       email = b.email,
       segment = b.segment,
       signup_date = b.signup_date,
       lifecycle_stage = b.lifecycle_stage,
       location_key = b.location_key,
       is_inferred = b.is_inferred,
       deleted_at = b.deleted_at
  from {{ build('dim_customer') }} b
 where d.customer_key = b.customer_key
   and (d.name, d.email, d.segment, d.signup_date, d.lifecycle_stage, d.location_key, d.is_inferred, d.deleted_at)
       is distinct from
       (b.name, b.email, b.segment, b.signup_date, b.lifecycle_stage, b.location_key, b.is_inferred, b.deleted_at);

insert into warehouse.dim_customer (
  customer_key, customer_id, name, email, segment, signup_date, lifecycle_stage, location_key, valid_from, valid_to,
  is_inferred, deleted_at
)
select
  customer_key, customer_id, name, email, segment, signup_date, lifecycle_stage, location_key, valid_from, valid_to,
  is_inferred, deleted_at
from {{ build('dim_customer') }} b
where not exists (select from warehouse.dim_customer d where d.customer_key = b.customer_key);

delete from warehouse.dim_location d
 using {{ build('gone_locations') }} g
 where d.location_key = g.location_key;

create temporary table written (inserted bigint, updated bigint, repointed bigint, deleted bigint) on commit drop;

do $$
declare
  w written;
begin
  delete from warehouse.fact_sales f
   using {{ build('affected_orders') }} a
   where f.order_id = a.order_id
     and not exists (
       select from {{ build('fact_sales') }} b where b.order_id = f.order_id and b.line_number = f.line_number
     );
  get diagnostics w.deleted = row_count;

  update warehouse.fact_sales f
     set date_key = b.date_key,
         customer_key = b.customer_key,
         product_key = b.product_key,
         location_key = b.location_key,
         quantity = b.quantity,
         unit_price = b.unit_price,
         total_amount = b.total_amount,
         discount_amount = b.discount_amount,
         net_amount = b.net_amount,
         order_created_at = b.order_created_at,
         order_count = b.order_count
    from {{ build('fact_sales') }} b
   where f.order_id = b.order_id
     and f.line_number = b.line_number
     and (f.date_key, f.customer_key, f.product_key, f.location_key, f.quantity, f.unit_price, f.total_amount,
          f.discount_amount, f.net_amount, f.order_created_at, f.order_count)
         is distinct from
         (b.date_key, b.customer_key, b.product_key, b.location_key, b.quantity, b.unit_price, b.total_amount,
          b.discount_amount, b.net_amount, b.order_created_at, b.order_count);
  get diagnostics w.updated = row_count;

  update warehouse.fact_sales f
     set customer_key = r.customer_key,
         location_key = r.location_key
    from {{ build('repointed') }} r
   where f.order_id = r.order_id and f.line_number = r.line_number;
  get diagnostics w.repointed = row_count;

  insert into warehouse.fact_sales (
    order_id, line_number, date_key, customer_key, product_key, location_key, quantity, unit_price, total_amount,
    discount_amount, net_amount, order_created_at, order_count
  )
  select
    order_id, line_number, date_key, customer_key, product_key, location_key, quantity, unit_price, total_amount,
    discount_amount, net_amount, order_created_at, order_count
  from {{ build('fact_sales') }} b
  where not exists (
    select from warehouse.fact_sales f where f.order_id = b.order_id and f.line_number = b.line_number
  );
  get diagnostics w.inserted = row_count;

  insert into written select w.*;
end
$$;

-- Years beyond the calendar's own stay as long as facts need them.
delete from warehouse.dim_date d
 where d.year not between {{ first_year }} and {{ last_year }}
   and not exists (
     select from warehouse.fact_sales f where f.date_key between d.year * 10000 and d.year * 10000 + 1231
   );

delete from warehouse.daily_sales d
 using {{ build('affected_days') }} a
 where d.date = make_date(a.date_key / 10000, a.date_key / 100 % 100, a.date_key % 100)
   and not exists (select from {{ build('daily_sales') }} b where b.date = d.date);

insert into warehouse.daily_sales as d (date, order_count, total_revenue, average_order_value, unique_customers)
select date, order_count, total_revenue, average_order_value, unique_customers from {{ build('daily_sales') }}
on conflict (date) do update set
  order_count = excluded.order_count,
  total_revenue = excluded.total_revenue,
  average_order_value = excluded.average_order_value,
  unique_customers = excluded.unique_customers
  where (d.order_count, d.total_revenue, d.unique_customers)
        is distinct from (excluded.order_count, excluded.total_revenue, excluded.unique_customers);

delete from warehouse.customer_totals t
 using {{ build('affected_keys') }} a
 where t.customer_key = a.customer_key
   and not exists (select from {{ build('customer_totals') }} b where b.customer_key = t.customer_key);

insert into warehouse.customer_totals as t (customer_key, order_count, total_revenue)
select customer_key, order_count, total_revenue from {{ build('customer_totals') }}
on conflict (customer_key) do update set
  order_count = excluded.order_count,
  total_revenue = excluded.total_revenue
  where (t.order_count, t.total_revenue) is distinct from (excluded.order_count, excluded.total_revenue);

delete from warehouse.sales_by_region r
 where not exists (select from {{ build('sales_by_region') }} b where b.country = r.country);

insert into warehouse.sales_by_region as r (country, customer_count, total_revenue)
select country, customer_count, total_revenue from {{ build('sales_by_region') }}
on conflict (country) do update set
  customer_count = excluded.customer_count,
  total_revenue = excluded.total_revenue
  where (r.customer_count, r.total_revenue) is distinct from (excluded.customer_count, excluded.total_revenue);

delete from warehouse.sales_by_segment s
 where not exists (select from {{ build('sales_by_segment') }} b where b.segment = s.segment);

insert into warehouse.sales_by_segment as s (segment, customer_count, order_count, total_revenue, avg_order_value)
select segment, customer_count, order_count, total_revenue, avg_order_value from {{ build('sales_by_segment') }}
on conflict (segment) do update set
  customer_count = excluded.customer_count,
  order_count = excluded.order_count,
  total_revenue = excluded.total_revenue,
  avg_order_value = excluded.avg_order_value
  where (s.customer_count, s.order_count, s.total_revenue)
        is distinct from (excluded.customer_count, excluded.order_count, excluded.total_revenue);

-- So that the next load's plans know what there is now; what changes little by little autovacuum sees to.
do $$
begin
  if (select is_full from {{ build('load') }}) then
    analyze warehouse.dim_date, warehouse.dim_location, warehouse.dim_product, warehouse.dim_customer,
            warehouse.fact_sales, warehouse.daily_sales, warehouse.customer_totals;
  end if;
end
$$;

insert into warehouse.load_log (
  load, run_id, as_of, business_timezone, holiday_country, is_full, customers_seq, customers_generation, products_seq,
  products_generation, orders_seq, orders_generation, orders_affected, customers_affected, products_affected,
  facts_inserted, facts_updated, facts_deleted
)
select
  l.load, l.run_id, l.as_of, l.business_timezone, l.holiday_country, l.is_full, l.customers_seq, l.customers_generation,
  l.products_seq, l.products_generation, l.orders_seq, l.orders_generation,
  (select count(*) from {{ build('affected_orders') }}),
  (select count(*) from {{ build('affected_customers') }}),
  (select count(*) from {{ build('affected_products') }}),
  w.inserted, w.updated + w.repointed, w.deleted
from {{ build('load') }} l
cross join written w;

select * from warehouse.load_log where load = '{{ load }}';

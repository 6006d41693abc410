{#- Builds the marts: the days that a load changes, the totals of the customers that it changes, and from all customers'
    totals the regions and segments. Revenue is the sum of net.

    reads   what dimensions and facts have built, warehouse
    makes   affected_days, daily_sales          the days that have sales, of the affected ones
            affected_keys, customer_totals      the customers' versions that have sales, of the affected ones
            sales_by_region, sales_by_segment   all of them
            next_daily_sales, next_customer_totals: views of what readers will see

    A customer that the source has deleted, or that has not come, is not counted; its revenue is. -#}
{%- from 'warehouse/expressions.sql' import date_key -%}
{#- next_fact_sales, as far as `column` is affected; the build's facts all are. Said so that an index on it can serve. -#}
{%- macro next_facts(affected, column) -%}
  select f.date_key, coalesce(r.customer_key, f.customer_key) as customer_key, f.order_count, f.net_amount
    from {{ affected }} a
    join warehouse.fact_sales f on {{ column }}
    left join {{ build('repointed') }} r on r.order_id = f.order_id and r.line_number = f.line_number
   where not exists (select from {{ build('affected_orders') }} o where o.order_id = f.order_id)
  union all
  select date_key, customer_key, order_count, net_amount from {{ build('fact_sales') }}
{%- endmacro -%}
{% include 'warehouse/step.sql' %}

create unlogged table {{ build('affected_days') }} as
select date_key from {{ build('replaced') }}
union
select date_key from {{ build('fact_sales') }}
union
select {{ date_key('date') }} from warehouse.daily_sales where (select is_full from {{ build('load') }});
analyze {{ build('affected_days') }};

create unlogged table {{ build('daily_sales') }} as
with sales as (
  select date_key, sum(order_count)::bigint as order_count, sum(net_amount) as total_revenue
    from (
      {{ next_facts(build('affected_days'), 'f.date_key = a.date_key') | indent(6) }}
    ) as facts
   group by date_key
),
buyers as (
  -- Two versions of a customer on one day are one customer.
  select sold.date_key, count(distinct d.customer_id) as unique_customers
    from (
      select distinct date_key, customer_key
        from (
          {{ next_facts(build('affected_days'), 'f.date_key = a.date_key') | indent(10) }}
        ) as facts
    ) as sold
    join {{ build('next_dim_customer') }} d on d.customer_key = sold.customer_key
   group by sold.date_key
)
select
  make_date(s.date_key / 10000, s.date_key / 100 % 100, s.date_key % 100) as date,
  s.order_count,
  s.total_revenue,
  round(s.total_revenue / s.order_count, 4) as average_order_value,
  coalesce(b.unique_customers, 0) as unique_customers
from sales s
left join buyers b on b.date_key = s.date_key;

create view {{ build('next_daily_sales') }} as
select date, order_count, total_revenue, average_order_value, unique_customers
  from warehouse.daily_sales d
 where not exists (
   select
     from {{ build('affected_days') }} a
    where make_date(a.date_key / 10000, a.date_key / 100 % 100, a.date_key % 100) = d.date
 )
union all
select date, order_count, total_revenue, average_order_value, unique_customers from {{ build('daily_sales') }};

-- Each fact's version, before and after: a version that is gone has lost the facts that it had.
create unlogged table {{ build('affected_keys') }} as
select customer_key from {{ build('replaced') }}
union
select customer_key from {{ build('fact_sales') }}
union
select old_customer_key from {{ build('repointed') }}
union
select customer_key from {{ build('repointed') }}
union
select customer_key from warehouse.customer_totals where (select is_full from {{ build('load') }});
analyze {{ build('affected_keys') }};

create unlogged table {{ build('customer_totals') }} as
select customer_key, sum(order_count)::bigint as order_count, sum(net_amount) as total_revenue
  from (
    -- A fact that was pointed at another version is found by the one that it had.
    {{ next_facts(build('affected_keys'), 'f.customer_key = a.customer_key') | indent(4) }}
  ) as facts
 group by customer_key;
analyze {{ build('customer_totals') }};

create view {{ build('next_customer_totals') }} as
select customer_key, order_count, total_revenue
  from warehouse.customer_totals t
 where not exists (select from {{ build('affected_keys') }} a where a.customer_key = t.customer_key)
union all
select customer_key, order_count, total_revenue from {{ build('customer_totals') }};

create temporary table customers on commit drop as
with totals as (
  select d.customer_id, sum(t.order_count) as order_count, sum(t.total_revenue) as total_revenue
    from {{ build('next_customer_totals') }} t
    join {{ build('next_dim_customer') }} d on d.customer_key = t.customer_key
   group by d.customer_id
)
select
  coalesce(l.country, 'unknown') as country,
  coalesce(c.segment, 'unknown') as segment,
  (not c.is_inferred and c.deleted_at is null)::integer as counted,
  coalesce(t.order_count, 0) as order_count,
  coalesce(t.total_revenue, 0) as total_revenue
from {{ build('next_dim_customer') }} c
join {{ build('next_dim_location') }} l on l.location_key = c.location_key
left join totals t on t.customer_id = c.customer_id
where c.is_current and c.customer_id is not null
union all
-- of orders that name nobody
select 'unknown', 'unknown', 0, order_count, total_revenue
  from totals
 where customer_id is null;

create unlogged table {{ build('sales_by_region') }} as
select country, sum(counted) as customer_count, sum(total_revenue) as total_revenue
  from customers
 group by country
having sum(counted) + sum(order_count) > 0;

create unlogged table {{ build('sales_by_segment') }} as
select
  segment,
  sum(counted) as customer_count,
  sum(order_count)::bigint as order_count,
  sum(total_revenue) as total_revenue,
  round(sum(total_revenue) / nullif(sum(order_count), 0), 4) as avg_order_value
from customers
group by segment
having sum(counted) + sum(order_count) > 0;

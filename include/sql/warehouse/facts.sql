{#- Builds the facts of the orders that a load changes, one an order item, and points the others at changed versions.

    reads   raw, warehouse, affected_orders, affected_customers, what dimensions has built
    makes   fact_sales        all facts of the affected orders
            repointed         other facts whose customer's version, or its place, is another one now
            replaced          days and customers' versions of the facts that the affected orders had before
            next_fact_sales   a view of what readers will see -#}
{%- from 'warehouse/expressions.sql' import day, date_key, valid_at, is_sale -%}
{% include 'warehouse/step.sql' %}

create temporary table sales on commit drop as
select
  o.order_id,
  o.created_at,
  {{ date_key('o.day') }} as date_key,
  coalesce(d.customer_key, -1) as customer_key,
  coalesce(d.location_key, -1) as location_key,
  o.first_line
from (
  select o.id as order_id, o.customer_id, o.created_at, {{ day('o.created_at') }} as day, items.first_line
    from (
      select i.order_id, min(i.line_number) as first_line
        from {{ build('affected_orders') }} a
        join raw.order_items i on i.order_id = a.order_id
       group by i.order_id
    ) as items
    join raw.orders o on o.id = items.order_id
   cross join {{ build('load') }} l
   where {{ is_sale('o') }}
) as o
left join {{ build('next_dim_customer') }} d on d.customer_id = o.customer_id and {{ valid_at('d', 'o.created_at') }};
analyze sales;

create unlogged table {{ build('fact_sales') }} as
select
  s.order_id,
  i.line_number,
  s.date_key,
  s.customer_key,
  coalesce(p.product_key, -1) as product_key,
  s.location_key,
  i.quantity,
  i.price as unit_price,
  i.quantity * i.price as total_amount,
  i.discount as discount_amount,
  i.quantity * i.price - i.discount as net_amount,
  s.created_at as order_created_at,
  (i.line_number = s.first_line)::integer::smallint as order_count
from sales s
join raw.order_items i on i.order_id = s.order_id
left join {{ build('next_dim_product') }} p on p.product_id = i.product_id;
analyze {{ build('fact_sales') }};

create unlogged table {{ build('repointed') }} as
select f.order_id, f.line_number, f.customer_key as old_customer_key, n.customer_key, n.location_key
  from (
    -- Facts of a version that stays what it was, and where it was, point right.
    select d.customer_id, d.customer_key
      from {{ build('affected_customers') }} a
      join warehouse.dim_customer d on d.customer_id = a.customer_id
     where not exists (
       select
         from {{ build('dim_customer') }} n
        where n.customer_key = d.customer_key and n.valid_to = d.valid_to and n.location_key = d.location_key
     )
  ) as changed
  join warehouse.fact_sales f on f.customer_key = changed.customer_key
  join {{ build('dim_customer') }} n on n.customer_id = changed.customer_id and {{ valid_at('n', 'f.order_created_at') }}
 where (n.customer_key <> f.customer_key or n.location_key <> f.location_key)
   and not exists (select from {{ build('affected_orders') }} a where a.order_id = f.order_id);
analyze {{ build('repointed') }};

create unlogged table {{ build('replaced') }} as
select distinct f.date_key, f.customer_key
  from {{ build('affected_orders') }} a
  join warehouse.fact_sales f on f.order_id = a.order_id;
analyze {{ build('replaced') }};

create view {{ build('next_fact_sales') }} as
select
  f.order_id, f.line_number, f.date_key, coalesce(r.customer_key, f.customer_key) as customer_key, f.product_key,
  coalesce(r.location_key, f.location_key) as location_key, f.quantity, f.unit_price, f.total_amount, f.discount_amount,
  f.net_amount, f.order_created_at, f.order_count
from warehouse.fact_sales f
left join {{ build('repointed') }} r on r.order_id = f.order_id and r.line_number = f.line_number
where not exists (select from {{ build('affected_orders') }} a where a.order_id = f.order_id)
union all
select
  order_id, line_number, date_key, customer_key, product_key, location_key, quantity, unit_price, total_amount,
  discount_amount, net_amount, order_created_at, order_count
from {{ build('fact_sales') }};

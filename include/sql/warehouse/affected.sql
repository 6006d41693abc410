{#- What a load will build anew: the orders, customers and products that changed, and all that hangs on them.

    in      base    the numbers of raw that are in the warehouse already
            full    everything, whatever changed
            days    the first and the last date_key of an interval that is built anew too, or none
    reads   raw, warehouse, the load's own row
    makes   affected_orders, affected_customers, affected_products, and dim_date, which is empty
    gives   the years that the affected orders and the facts need of the calendar -#}
{%- from 'warehouse/expressions.sql' import day, date_key, stage, is_sale -%}
set local jit = off;
set local work_mem = '128MB';

create unlogged table {{ build('affected_orders') }} as
{%- if full %}
select id as order_id from raw.orders
union all
select distinct order_id from warehouse.fact_sales f where not exists (select from raw.orders o where o.id = f.order_id)
{%- else %}
select id as order_id from raw.orders where change_seq > {{ base.orders_seq }}
{%- if days %}
union
select o.id
  from raw.orders o
 cross join {{ build('load') }} l
 where {{ date_key(day('o.created_at')) }} between {{ days[0] }} and {{ days[1] }}
union
select order_id from warehouse.fact_sales where date_key between {{ days[0] }} and {{ days[1] }}
{%- endif %}
{%- endif %};
analyze {{ build('affected_orders') }};

create unlogged table {{ build('affected_customers') }} as
{%- if full %}
select id as customer_id from raw.customers
union
select customer_id from warehouse.dim_customer where customer_id is not null
{%- else %}
select id as customer_id from raw.customers where change_seq > {{ base.customers_seq }}
union
select id from raw.customers_history where change_seq > {{ base.customers_seq }}
union
-- Those whose stage changes: they signed up some 7, 30 or 90 days before the days between the two loads.
select d.customer_id
  from {{ build('load') }} l
 cross join (values (7), (30), (90)) as threshold (days)
  join warehouse.dim_customer d
    on d.is_current
   and d.signup_date >= least(l.as_of, l.base_as_of) - make_interval(days => threshold.days + 2)
   and d.signup_date <= greatest(l.as_of, l.base_as_of) - make_interval(days => threshold.days - 2)
 where {{ stage('l.as_of', 'd.signup_date') }} <> {{ stage('l.base_as_of', 'd.signup_date') }}
union
-- Inferred members that facts pointed at: they may not be needed any more.
select d.customer_id
  from {{ build('affected_orders') }} a
  join warehouse.fact_sales f on f.order_id = a.order_id
  join warehouse.dim_customer d on d.customer_key = f.customer_key
 where d.is_inferred
{%- endif %}
union
-- Customers that orders name and that have not come.
select o.customer_id
  from {{ build('affected_orders') }} a
  join raw.orders o on o.id = a.order_id
 where o.customer_id is not null
   and not exists (select from raw.customers c where c.id = o.customer_id);
analyze {{ build('affected_customers') }};

create unlogged table {{ build('affected_products') }} as
{%- if full %}
select id as product_id from raw.products
union
select product_id from warehouse.dim_product where product_id is not null
{%- else %}
select id as product_id from raw.products where change_seq > {{ base.products_seq }}
union
select p.product_id
  from {{ build('affected_orders') }} a
  join warehouse.fact_sales f on f.order_id = a.order_id
  join warehouse.dim_product p on p.product_key = f.product_key
 where p.is_inferred
{%- endif %}
union
select i.product_id
  from {{ build('affected_orders') }} a
  join raw.order_items i on i.order_id = a.order_id
 where i.product_id is not null
   and not exists (select from raw.products p where p.id = i.product_id);
analyze {{ build('affected_products') }};

create unlogged table {{ build('dim_date') }} (like warehouse.dim_date);

select extract(year from sales.day)::integer as year
  from (
    select distinct {{ day('o.created_at') }} as day
      from {{ build('affected_orders') }} a
      join raw.orders o on o.id = a.order_id
     cross join {{ build('load') }} l
     where {{ is_sale('o') }}
  ) as sales
union
select year from warehouse.dim_date;

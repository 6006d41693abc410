{#- Makes the tables that the gate looks at: each has a row for what would be wrong for readers, and none if all is right.

    reads   raw, of which the load is made; what readers would see, which is what is live less what is affected, and the build
    makes   wrong_facts              orders whose facts are not raw's: lost, left over, of another amount, day, buyer, product
            wrong_fact_keys          orders with facts of which a key is no member's, or whose version or place is not theirs
            wrong_customers          customers that are not raw's, or whose versions do not follow one another
            wrong_products           products that are not raw's
            wrong_daily_sales        days that are not what they were, less the facts that go, with those that come
            wrong_sales_by_region, wrong_sales_by_segment    not raw's customers, or not the sum of their totals
            wrong_totals             one row where the marts do not add up to the same orders and revenue

    Looked at is what the load affects: everything in a full load, and otherwise the orders, customers, products and days
    that change; of the rest, that all marts still add up to the same. Tables, not views: whoever asks a view for its
    first row gets a plan that expects to find one soon, and looks for it for minutes where there is none. -#}
{%- from 'warehouse/expressions.sql' import day, date_key, valid_at, is_sale -%}
{% include 'warehouse/step.sql' %}

create temporary table checked_orders on commit drop as
select order_id from {{ build('affected_orders') }}
union
select f.order_id
  from {{ build('affected_customers') }} a
  join warehouse.dim_customer d on d.customer_id = a.customer_id
  join warehouse.fact_sales f on f.customer_key = d.customer_key;
analyze checked_orders;

-- Per order, with what its facts are joined to by their keys.
create temporary table found on commit drop as
select
  f.order_id,
  min(f.date_key) as date_key,
  max(f.date_key) as last_date_key,
  count(*) as items,
  sum(f.order_count) as orders,
  sum(f.total_amount) as total_amount,
  sum(f.net_amount) as net_amount,
  bit_xor(hash_record_extended(
    row(f.line_number, p.product_id, f.quantity, f.unit_price, f.discount_amount, c.customer_id, f.order_created_at), 0
  )) as fingerprint,
  bool_and(
    c.customer_key is not null
      and p.product_key is not null
      and d.date_key is not null
      and f.location_key = c.location_key
      and {{ valid_at('c', 'f.order_created_at') }}
  ) is true as is_resolved
from (
  -- next_fact_sales, as far as it is checked: said so that the key of fact_sales can serve
  select
    f.order_id, f.line_number, f.date_key, coalesce(r.customer_key, f.customer_key) as customer_key, f.product_key,
    coalesce(r.location_key, f.location_key) as location_key, f.quantity, f.unit_price, f.total_amount, f.discount_amount,
    f.net_amount, f.order_created_at, f.order_count
  from checked_orders k
  join warehouse.fact_sales f on f.order_id = k.order_id
  left join {{ build('repointed') }} r on r.order_id = f.order_id and r.line_number = f.line_number
  where not exists (select from {{ build('affected_orders') }} a where a.order_id = k.order_id)
  union all
  select
    order_id, line_number, date_key, customer_key, product_key, location_key, quantity, unit_price, total_amount,
    discount_amount, net_amount, order_created_at, order_count
  from {{ build('fact_sales') }}
) as f
left join {{ build('next_dim_customer') }} c on c.customer_key = f.customer_key
left join {{ build('next_dim_product') }} p on p.product_key = f.product_key
left join (
  select date_key from warehouse.dim_date
  union
  select date_key from {{ build('dim_date') }}
) as d on d.date_key = f.date_key
group by f.order_id;
analyze found;

create temporary table sold on commit drop as
select o.id, o.customer_id, o.created_at, {{ date_key(day('o.created_at')) }} as date_key
  from checked_orders c
  join raw.orders o on o.id = c.order_id
 cross join {{ build('load') }} l
 where {{ is_sale('o') }};
analyze sold;

create unlogged table {{ build('wrong_facts') }} as
with expected as (
  select
    i.order_id,
    min(o.date_key) as date_key,
    count(*) as items,
    sum(i.quantity * i.price) as total_amount,
    sum(i.quantity * i.price - i.discount) as net_amount,
    bit_xor(hash_record_extended(
      row(i.line_number, i.product_id, i.quantity, i.price, i.discount, o.customer_id, o.created_at), 0
    )) as fingerprint
  from sold o
  join raw.order_items i on i.order_id = o.id
  group by i.order_id
)
select order_id, e.items as items_expected, f.items as items_found, e.net_amount as net_expected, f.net_amount as net_found
  from expected e
  full join found f using (order_id)
 where (e.items, 1, e.total_amount, e.net_amount, e.fingerprint, e.date_key, e.date_key)
       is distinct from
       (f.items, f.orders, f.total_amount, f.net_amount, f.fingerprint, f.date_key, f.last_date_key);

create unlogged table {{ build('wrong_fact_keys') }} as
select order_id
  from found
 where not is_resolved;

create unlogged table {{ build('wrong_customers') }} as
with versions as (
  select
    d.*,
    lag(valid_to) over chain as previous_to,
    lead(valid_from) over chain as next_from
  from {{ build('next_dim_customer') }} d
  where customer_id in (select customer_id from {{ build('affected_customers') }})
  window chain as (partition by customer_id order by valid_from)
)
select coalesce(v.customer_id, c.id) as customer_id
  from (
    select
      v.*,
      valid_from = coalesce(previous_to, timestamptz '0001-01-01 00:00:00+00')
      and valid_to = coalesce(next_from, timestamptz '9999-12-31 00:00:00+00')
      and valid_from < valid_to as is_in_place
    from versions v
  ) as v
  left join {{ build('next_dim_location') }} l on l.location_key = v.location_key
  full join (
    select * from raw.customers where id in (select customer_id from {{ build('affected_customers') }})
  ) as c on c.id = v.customer_id
 where (v.is_in_place and l.location_key is not null) is not true
    or (c.id is null) <> v.is_inferred
    or v.is_current and c.id is not null and (
      (v.name, v.email, v.segment, v.signup_date, l.country, l.state, l.city, l.zip_code)
      is distinct from
      (c.name, c.email, c.segment, c.signup_date, nullif(c.country, ''), nullif(c.state, ''), nullif(c.city, ''), nullif(c.zip_code, ''))
    )
    or v.deleted_at is distinct from c.deleted_at;

create unlogged table {{ build('wrong_products') }} as
select coalesce(d.product_id, p.id) as product_id
  from (
    select *
      from {{ build('next_dim_product') }}
     where product_id in (select product_id from {{ build('affected_products') }})
  ) as d
  full join (
    select * from raw.products where id in (select product_id from {{ build('affected_products') }})
  ) as p on p.id = d.product_id
 where d.product_id is null
    or (p.id is null) <> d.is_inferred
    or p.id is not null and (d.name, d.category, d.brand, d.sku) is distinct from (p.name, p.category, p.brand, p.sku);

create unlogged table {{ build('wrong_daily_sales') }} as
with moved as (
  select f.date_key, -f.order_count as order_count, -f.net_amount as net_amount
    from {{ build('affected_orders') }} a
    join warehouse.fact_sales f on f.order_id = a.order_id
  union all
  select date_key, order_count, net_amount from {{ build('fact_sales') }}
  union all
  select {{ date_key('date') }}, order_count, total_revenue
    from warehouse.daily_sales
   where {{ date_key('date') }} in (select date_key from {{ build('affected_days') }})
),
expected as (
  select
    date_key,
    make_date(date_key / 10000, date_key / 100 % 100, date_key % 100) as date,
    sum(order_count) as order_count,
    sum(net_amount) as total_revenue
  from moved
  group by date_key
 having sum(order_count) <> 0 or sum(net_amount) <> 0
),
buyers as (
  select date_key, count(customer_id) as fewest_customers
    from (
      select distinct s.date_key, s.customer_id
        from sold s
       where exists (select from raw.order_items i where i.order_id = s.id)
    ) as bought
   group by date_key
),
shown as (
  select *
    from {{ build('next_daily_sales') }}
   where {{ date_key('date') }} in (select date_key from {{ build('affected_days') }})
)
select date
  from expected e
  left join buyers b using (date_key)
  full join shown f using (date)
 where (f.order_count, f.total_revenue, f.average_order_value)
       is distinct from
       (e.order_count, e.total_revenue, round(e.total_revenue / nullif(e.order_count, 0), 4))
    or f.unique_customers not between coalesce(b.fewest_customers, 0) and e.order_count;

{% for mart, column, source in (
  ('sales_by_region', 'country', "nullif(c.country, '')"),
  ('sales_by_segment', 'segment', 'c.segment')
) -%}
create unlogged table {{ build('wrong_' ~ mart) }} as
with counted as (
  select coalesce({{ source }}, 'unknown') as {{ column }}, count(*) as customer_count
    from raw.customers c
   where c.deleted_at is null
   group by 1
),
sold as (
  select
    coalesce({{ source }}, 'unknown') as {{ column }},
    sum(t.order_count) as order_count,
    sum(t.total_revenue) as total_revenue
  from {{ build('next_customer_totals') }} t
  left join {{ build('next_dim_customer') }} d on d.customer_key = t.customer_key
  left join raw.customers c on c.id = d.customer_id
  group by 1
)
select {{ column }}
  from counted
  full join sold using ({{ column }})
  full join {{ build(mart) }} m using ({{ column }})
 where (m.customer_count, m.total_revenue{{ ', m.order_count' if column == 'segment' }})
       is distinct from
       (coalesce(counted.customer_count, 0), coalesce(sold.total_revenue, 0){{ ', coalesce(sold.order_count, 0)' if column == 'segment' }});

{% endfor -%}
create unlogged table {{ build('wrong_totals') }} as
select *
  from (select coalesce(sum(order_count), 0) as orders, coalesce(sum(total_revenue), 0) as revenue from {{ build('next_daily_sales') }}) as days
 cross join (
   select coalesce(sum(order_count), 0) as orders_of_customers, coalesce(sum(total_revenue), 0) as revenue_of_customers
     from {{ build('next_customer_totals') }}
 ) as customers
 cross join (select coalesce(sum(total_revenue), 0) as revenue_of_regions from {{ build('sales_by_region') }}) as regions
 cross join (
   select coalesce(sum(order_count), 0) as orders_of_segments, coalesce(sum(total_revenue), 0) as revenue_of_segments
     from {{ build('sales_by_segment') }}
 ) as segments
 where (orders, orders, revenue, revenue, revenue)
       is distinct from
       (orders_of_customers, orders_of_segments, revenue_of_customers, revenue_of_regions, revenue_of_segments);

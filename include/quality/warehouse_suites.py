"""What is expected of `warehouse`, as people read it: of its facts, its dimensions and its marts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from include.contracts import BY_NAME
from include.quality.expectations import (
    Suite,
    great_expectations,
    holds,
    no_rows,
    not_all_null,
    row_count_floor,
    unique,
)
from include.quality.gate import GateError

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

BEGINNING = "timestamptz '0001-01-01 00:00:00+00'"
TIME_ZONE = "(select business_timezone from warehouse.load_log order by id desc limit 1)"

FACTS = f"""
  select
    f.*,
    c.customer_key as customer_found,
    p.product_key as product_found,
    l.location_key as location_found,
    d.date_key as date_found,
    case when f.total_amount = f.quantity * f.unit_price then true end as total_right,
    case when f.net_amount = f.total_amount - f.discount_amount then true end as net_right,
    case
      when f.date_key = to_char(
        greatest(date '0001-01-01', least(date '9999-12-31', (f.order_created_at at time zone z.name)::date)),
        'YYYYMMDD'
      )::integer then true
    end as day_right,
    -- What is not found is told by itself.
    case
      when c.customer_key is null
        or f.order_created_at >= c.valid_from and (f.order_created_at < c.valid_to or c.is_current) then true
    end as version_right,
    case when c.customer_key is null or l.location_key is null or f.location_key = c.location_key then true end
      as place_right
  from warehouse.fact_sales as f
  cross join (select {TIME_ZONE} as name) as z
  left join warehouse.dim_customer as c on c.customer_key = f.customer_key
  left join warehouse.dim_product as p on p.product_key = f.product_key
  left join warehouse.dim_location as l on l.location_key = f.location_key
  left join warehouse.dim_date as d on d.date_key = f.date_key
"""  # noqa: S608 - of a constant

VERSIONS = f"""
  select
    v.*,
    l.location_key as location_found,
    case when v.valid_from < v.valid_to then true end as validity_right,
    case when v.number > 1 or v.valid_from = {BEGINNING} then true end as beginning_right,
    case when v.number = 1 or v.valid_from = v.ended then true end as chain_right,
    case when v.current = 1 then true end as current_right
  from (
    select
      d.*,
      row_number() over chain as number,
      lag(valid_to) over chain as ended,
      count(*) filter (where is_current) over (partition by customer_id) as current
    from warehouse.dim_customer as d
    where customer_key is distinct from -1
    window chain as (partition by customer_id order by valid_from, valid_to)
  ) as v
  left join warehouse.dim_location as l on l.location_key = v.location_key
"""  # noqa: S608 - of a constant

DAYS = """
  select
    coalesce(m.date, f.date) as date,
    m.date as day_found,
    case when (m.order_count, m.total_revenue) = (f.order_count, f.total_revenue) then true end as sums_right,
    case
      when m.average_order_value = round(m.total_revenue / nullif(m.order_count, 0), 4) then true
    end as average_right,
    case when m.unique_customers = f.unique_customers then true end as customers_right
  from warehouse.daily_sales as m
  full join (
    select
      d.date,
      sum(s.order_count) as order_count,
      sum(s.total_revenue) as total_revenue,
      count(distinct c.customer_id) as unique_customers
    from (
      select date_key, customer_key, sum(order_count) as order_count, sum(net_amount) as total_revenue
        from warehouse.fact_sales
       group by date_key, customer_key
    ) as s
    join warehouse.dim_date as d on d.date_key = s.date_key
    left join warehouse.dim_customer as c on c.customer_key = s.customer_key
    group by d.date
  ) as f on f.date = m.date
"""

# Of every customer what its versions sold, with where and what it is now; of the facts that name nobody too.
SOLD = """
  select
    coalesce(l.country, 'unknown') as country,
    coalesce(c.segment, 'unknown') as segment,
    (not c.is_inferred and c.deleted_at is null)::integer as counted,
    coalesce(t.order_count, 0) as order_count,
    coalesce(t.total_revenue, 0) as total_revenue
  from warehouse.dim_customer as c
  left join warehouse.dim_location as l on l.location_key = c.location_key
  left join (
    select v.customer_id, sum(s.order_count) as order_count, sum(s.total_revenue) as total_revenue
      from (
        select customer_key, sum(order_count) as order_count, sum(net_amount) as total_revenue
          from warehouse.fact_sales
         group by customer_key
      ) as s
      join warehouse.dim_customer as v on v.customer_key = s.customer_key
     group by v.customer_id
  ) as t on t.customer_id = c.customer_id
  where c.is_current and c.customer_id is not null
  union all
  select 'unknown', 'unknown', 0, coalesce(sum(order_count), 0), coalesce(sum(net_amount), 0)
    from warehouse.fact_sales
   where customer_key = -1
"""


SEGMENT_SUMS = """
          and m.order_count = f.order_count
          and m.avg_order_value is not distinct from round(f.total_revenue / nullif(f.order_count, 0), 4)"""


def declared() -> list[Suite]:
    """All that is expected of the warehouse, in as few scans of each table as there are kinds of questions."""
    return [*_facts(), *_dimensions(), *_marts()]


def _facts() -> list[Suite]:
    gx = great_expectations()
    key = ("order_id", "line_number")
    rules = (
        *(gx.ExpectColumnValuesToNotBeNull(column=name, meta={"column": f"fact_sales.{name}"}) for name in key),
        gx.ExpectColumnValuesToBeBetween(column="quantity", min_value=1, meta={"column": "fact_sales.quantity"}),
        gx.ExpectColumnValuesToBeBetween(column="unit_price", min_value=0, meta={"column": "fact_sales.unit_price"}),
        gx.ExpectColumnValuesToBeBetween(
            column="discount_amount", min_value=0, meta={"column": "fact_sales.discount_amount"}
        ),
        holds("total_amount", "total_right", column="fact_sales.total_amount", expected="quantity * unit_price"),
        holds("net_amount", "net_right", column="fact_sales.net_amount", expected="total_amount - discount_amount"),
        holds(
            "business_day", "day_right", column="fact_sales.date_key", expected="the business day of order_created_at"
        ),
        holds("date_exists", "date_found", column="fact_sales.date_key", expected="a day of dim_date"),
        holds(
            "customer_exists", "customer_found", column="fact_sales.customer_key", expected="a version of dim_customer"
        ),
        holds("product_exists", "product_found", column="fact_sales.product_key", expected="a member of dim_product"),
        holds(
            "location_exists", "location_found", column="fact_sales.location_key", expected="a member of dim_location"
        ),
        holds(
            "version_of_its_time",
            "version_right",
            column="fact_sales.customer_key",
            expected="valid at order_created_at",
        ),
        holds(
            "location_of_customer",
            "place_right",
            column="fact_sales.location_key",
            expected="that of the customer's version",
        ),
        row_count_floor(1, "fact_sales"),
    )
    once = """
      select order_id
        from warehouse.fact_sales
       group by order_id
      having sum(order_count) <> 1 or min(line_number) <> min(line_number) filter (where order_count = 1)
    """
    return [
        Suite(f"({FACTS})", rules, key, "warehouse.fact_sales"),
        _unique("fact_sales", *key),
        no_rows(
            "order_counted_once",
            once,
            key=("order_id",),
            title="warehouse.fact_sales, orders",
            column="fact_sales.order_count",
            expected="1 on an order's first line, 0 on the others",
        ),
    ]


def _dimensions() -> list[Suite]:
    gx = great_expectations()
    versions = (
        gx.ExpectColumnValuesToNotBeNull(column="customer_key", meta={"column": "dim_customer.customer_key"}),
        gx.ExpectColumnValuesToNotBeNull(column="customer_id", meta={"column": "dim_customer.customer_id"}),
        holds("version_validity", "validity_right", column="dim_customer.valid_to", expected="after valid_from"),
        holds("first_version", "beginning_right", column="dim_customer.valid_from", expected="the beginning of time"),
        holds(
            "chain_of_versions",
            "chain_right",
            column="dim_customer.valid_from",
            expected="where the version before ends",
        ),
        holds(
            "one_current_version",
            "current_right",
            column="dim_customer.is_current",
            expected="one version of each customer",
        ),
        holds(
            "location_exists", "location_found", column="dim_customer.location_key", expected="a member of dim_location"
        ),
        *_never_all_null("dim_customer", "customers", "name", "email", "segment", "signup_date"),
        not_all_null("lifecycle_stage", column="dim_customer.lifecycle_stage", is_of_the_source=False),
        row_count_floor(1, "dim_customer"),
    )
    products = (
        gx.ExpectColumnValuesToNotBeNull(column="product_key", meta={"column": "dim_product.product_key"}),
        gx.ExpectColumnValuesToNotBeNull(column="product_id", meta={"column": "dim_product.product_id"}),
        *_never_all_null("dim_product", "products", "name", "category", "brand", "sku"),
        row_count_floor(1, "dim_product"),
    )
    places = tuple(_never_all_null("dim_location", "customers", "country", "state", "city", "zip_code"))
    locations = Suite(
        "(select * from warehouse.dim_location where location_key is distinct from -1)",
        (*places, row_count_floor(1, "dim_location")),
        ("location_key",),
        "warehouse.dim_location",
    )
    days = (
        holds("date_key", "key_right", column="dim_date.date_key", expected="yyyymmdd of the date"),
        row_count_floor(1, "dim_date"),
    )
    dates = """
      select *, case when date_key = to_char(date, 'YYYYMMDD')::integer then true end as key_right
        from warehouse.dim_date
    """
    unknown = ", ".join(
        f"(select true from warehouse.dim_{name} where {name}_key = -1 limit 1) as {name}"  # noqa: S608 - names of our own
        for name in ("customer", "product", "location")
    )
    members = tuple(
        holds("unknown_member", name, column=f"dim_{name}.{name}_key", expected="a member -1")
        for name in ("customer", "product", "location")
    )
    return [
        Suite(f"({VERSIONS})", versions, ("customer_key",), "warehouse.dim_customer"),
        _unique("dim_customer", "customer_key"),
        Suite(
            "(select * from warehouse.dim_product where product_key is distinct from -1)",
            products,
            ("product_key",),
            "warehouse.dim_product",
        ),
        _unique("dim_product", "product_key"),
        _unique("dim_product", "product_id"),
        *([locations] if places else []),  # else the source has none
        _unique("dim_location", "location_key"),
        _unique("dim_location", "natural_key"),
        Suite(f"({dates})", days, ("date_key",), "warehouse.dim_date"),
        _unique("dim_date", "date"),
        Suite(f"(select {unknown})", members, title="warehouse, unknown members"),
    ]


def _never_all_null(dimension: str, entity: str, *columns: str) -> Iterator[Expectation]:
    """That some member has a value, but where the entity's contract says that the source may have none."""
    contract = BY_NAME.get(entity)
    if contract is None:
        raise GateError(f"warehouse: {dimension} is made from {entity}, of which there is no contract: declare it")
    for column in columns:
        if column not in contract.may_be_all_null:
            yield not_all_null(column, column=f"{dimension}.{column}")


def _marts() -> list[Suite]:
    days = (
        holds(
            "daily_sales", "sums_right", column="daily_sales.date", expected="the orders and the revenue of the fact"
        ),
        holds(
            "average_order_value",
            "average_right",
            column="daily_sales.average_order_value",
            expected="revenue / orders, rounded to four decimals",
        ),
        holds(
            "unique_customers",
            "customers_right",
            column="daily_sales.unique_customers",
            expected="the customers of the day's facts",
        ),
        row_count_floor(1, "daily_sales"),
    )
    totals = """
      select customer_key
        from warehouse.customer_totals as m
        full join (
          select customer_key, sum(order_count) as order_count, sum(net_amount) as total_revenue
            from warehouse.fact_sales
           group by customer_key
        ) as f using (customer_key)
       where (m.order_count, m.total_revenue) is distinct from (f.order_count, f.total_revenue)
    """
    return [
        Suite(f"({DAYS})", days, ("date",), "warehouse.daily_sales beside the fact"),
        no_rows(
            "customer_totals",
            totals,
            key=("customer_key",),
            title="warehouse.customer_totals beside the fact",
            column="customer_totals.customer_key",
            expected="the orders and the revenue of the fact",
        ),
        _by("sales_by_region", "country"),
        _by("sales_by_segment", "segment"),
    ]


def _by(mart: str, column: str) -> Suite:
    """A mart that sums up customers, beside the fact and the dimension of customers."""
    orders = SEGMENT_SUMS if column == "segment" else ""
    query = f"""
      select
        coalesce(m.{column}, f.{column}) as {column},
        case when m.total_revenue = f.total_revenue{orders} then true end as sums_right,
        case when m.customer_count = f.customer_count then true end as customers_right
      from warehouse.{mart} as m
      full join (
        select
          {column},
          sum(counted) as customer_count,
          sum(order_count) as order_count,
          sum(total_revenue) as total_revenue
        from ({SOLD}) as customers
        group by {column}
        having sum(counted) + sum(order_count) > 0
      ) as f on f.{column} = m.{column}
    """  # noqa: S608 - names of our own
    rules = (
        holds(mart, "sums_right", column=f"{mart}.{column}", expected="the orders and the revenue of the fact"),
        holds(
            "customer_count",
            "customers_right",
            column=f"{mart}.customer_count",
            expected="the customers that the source has",
        ),
        row_count_floor(1, mart),
    )
    return Suite(f"({query})", rules, (column,), f"warehouse.{mart} beside the fact")


def _unique(table: str, *key: str) -> Suite:
    return unique(f"warehouse.{table}", key, name="unique", column=", ".join(f"{table}.{name}" for name in key))

"""Whether the warehouse has what `app` has, exactly, although `app` moves on and the two may be two servers.

A load knows the `change_seq` up to which `app` is in it. Rows of `app` up to that number are what they were when it was
loaded: they are counted, and compared with the facts less those of what has changed since.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from psycopg import Connection, Error, IsolationLevel, sql
from psycopg.rows import dict_row

from include.quality import gate
from include.quality.expectations import Suite, holds
from include.quality.gate import GateError
from include.warehouse import load

logger = logging.getLogger(__name__)

Database = Connection[Any]
ENTITIES = ("customers", "products", "orders")

SALES = """
  select
    greatest(date '0001-01-01', least(date '9999-12-31', (o.created_at at time zone {time_zone})::date)) as day,
    count(distinct o.id) as orders,
    count(*) as items,
    count(o.customer_id) as of_customers,
    count(i.product_id) as of_products,
    sum(i.quantity * i.price - i.discount) as net
  from app.orders as o
  join app.order_items as i on i.order_id = o.id
  where o.change_seq <= {orders_seq} and o.deleted_at is null and o.status <> 'cancelled'
  group by 1
"""
MEMBERS = """
  select
    (select count(*) from app.customers where change_seq <= {customers_seq}) as customers,
    (select count(*) from app.products where change_seq <= {products_seq}) as products
"""

COMPARED_SALES = """
  select
    coalesce(a.day, f.day) as day,
    case when a.orders = f.orders then true end as orders_right,
    case when a.items = f.items then true end as items_right,
    case when a.of_customers = f.of_customers then true end as of_customers_right,
    case when a.of_products = f.of_products then true end as of_products_right,
    case when a.net = f.net then true end as net_right
  from {sales} as a
  full join (
    select
      to_date(date_key::text, 'YYYYMMDD') as day,
      sum(order_count) as orders,
      count(*) as items,
      count(*) filter (where customer_key <> -1) as of_customers,
      count(*) filter (where product_key <> -1) as of_products,
      sum(net_amount) as net
    from warehouse.fact_sales as s
    where not exists (select from {changed_orders} as c where c.id = s.order_id)
    group by date_key
  ) as f on f.day = a.day
"""
COMPARED_MEMBERS = """
  select
    case when a.customers = c.members then true end as customers_right,
    a.customers || ' in app, ' || c.members || ' in the warehouse' as customers_told,
    case when a.products = p.members then true end as products_right,
    a.products || ' in app, ' || p.members || ' in the warehouse' as products_told,
    case when exists (select from {sales}) or exists (select from {changed_orders}) then true end as compared
  from {members} as a
  cross join (
    select count(*) as members
      from warehouse.dim_customer as d
     where is_current
       and customer_key <> -1
       and not is_inferred
       and not exists (select from {changed_customers} as c where c.id = d.customer_id)
  ) as c
  cross join (
    select count(*) as members
      from warehouse.dim_product as d
     where product_key <> -1
       and not is_inferred
       and not exists (select from {changed_products} as c where c.id = d.product_id)
  ) as p
"""


@contextmanager
def prepared(app: Database, warehouse: Database) -> Iterator[list[Suite]]:
    """The suites that compare the fact with `app`, to be evaluated on the warehouse while the context lasts.

    Reads `app` in one snapshot, and brings what is compared into tables of its own in `warehouse_build`, which are
    dropped at the end. Neither connection may be in a transaction; both are left in none.

    Raises GateError where nothing has been loaded yet, and at the end where a load was published meanwhile: then what
    was compared belongs to two loads, and is to be compared again.
    """
    build = uuid4()
    try:
        try:
            loaded = _newest(warehouse)
            if loaded is None:
                raise GateError("reconciliation: nothing has been loaded into the warehouse yet: run warehouse_load")
            with warehouse.transaction():
                _begin(warehouse, build)
                _copy(app, warehouse, build, loaded)
        except Error as error:
            raise GateError(f"reconciliation: cannot be prepared: {_said(error)}") from error
        yield _suites(build)
        try:
            newest = _newest(warehouse)
        except Error as error:
            raise GateError(f"reconciliation: the newest load is not known: {_said(error)}") from error
        if newest is None or newest["load"] != loaded["load"]:
            raise GateError("reconciliation: a load was published while the two were compared: run it again")
    finally:
        try:
            load.drop(warehouse, build)
        except Error as error:  # nor does it change what was found: housekeeping drops them
            logger.warning("reconciliation: its tables are left: %s", _said(error))


def _said(error: Error) -> str:
    return gate.cause(f"(psycopg.errors.{type(error).__name__}) {error}")


def _newest(warehouse: Database) -> dict[str, Any] | None:
    with warehouse.transaction(), warehouse.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("select * from warehouse.load_log order by id desc limit 1").fetchone()


def _table(name: str, build: UUID) -> sql.Identifier:
    return sql.Identifier("warehouse_build", f"{name}_{build.hex}")


def _begin(warehouse: Database, build: UUID) -> None:
    """Makes the tables; that of the load says whose they are, so that they are not taken for abandoned ones."""
    for name, columns in (
        ("load", "run_id text not null, begun_at timestamptz not null default now()"),
        (
            "sales",
            "day date not null, orders bigint not null, items bigint not null, of_customers bigint not null, "
            "of_products bigint not null, net numeric not null",
        ),
        ("members", "customers bigint not null, products bigint not null"),
        ("changed_customers", "id uuid not null"),
        ("changed_products", "id text not null"),
        ("changed_orders", "id text not null"),
    ):
        statement = sql.SQL("create unlogged table {} ({})").format(_table(name, build), sql.SQL(columns))
        warehouse.execute(statement)
    insert = sql.SQL("insert into {} (run_id) values ({})").format(_table("load", build), f"reconciliation {build}")
    warehouse.execute(insert)


def _copy(app: Database, warehouse: Database, build: UUID, loaded: dict[str, Any]) -> None:
    """Brings what is compared from one snapshot of `app`."""
    values = {
        "time_zone": sql.Literal(loaded["business_timezone"]),
        **{f"{entity}_seq": sql.Literal(loaded[f"{entity}_seq"]) for entity in ENTITIES},
    }
    queries = {"sales": sql.SQL(SALES).format(**values), "members": sql.SQL(MEMBERS).format(**values)}
    for entity in ENTITIES:
        queries[f"changed_{entity}"] = sql.SQL("select id from {} where change_seq > {}").format(
            sql.Identifier("app", entity), values[f"{entity}_seq"]
        )
    isolation, app.isolation_level = app.isolation_level, IsolationLevel.REPEATABLE_READ
    try:
        with app.transaction(), app.cursor() as source, warehouse.cursor() as target:
            source.execute("set transaction read only")
            for name, query in queries.items():
                table = _table(name, build)
                with (
                    source.copy(sql.SQL("copy ({}) to stdout (format binary)").format(query)) as rows,
                    target.copy(sql.SQL("copy {} from stdin (format binary)").format(table)) as copied,
                ):
                    for block in rows:
                        copied.write(block)
                target.execute(sql.SQL("analyze {}").format(table))
    finally:
        app.isolation_level = isolation


def _suites(build: UUID) -> list[Suite]:
    names = ("sales", "members", *(f"changed_{entity}" for entity in ENTITIES))
    tables = {name: f"warehouse_build.{name}_{build.hex}" for name in names}
    same = "the same in app and in the fact"
    sales = (
        holds("orders_of_a_day", "orders_right", column="fact_sales.order_count", expected=same),
        holds("items_of_a_day", "items_right", column="fact_sales.line_number", expected=same),
        holds("customers_of_a_day", "of_customers_right", column="fact_sales.customer_key", expected=same),
        holds("products_of_a_day", "of_products_right", column="fact_sales.product_key", expected=same),
        holds("net_revenue_of_a_day", "net_right", column="fact_sales.net_amount", expected=same),
    )
    members = tuple(
        holds(
            f"number_of_{name}s",
            f"{name}s_right",
            column=f"dim_{name}.{name}_id",
            observed=f"{name}s_told",
            expected="as many in app as in the warehouse",
        )
        for name in ("customer", "product")
    )
    compared = holds("sales_compared", "compared", expected="a day with sales, or orders that changed since the load")
    return [
        Suite(f"({COMPARED_SALES.format(**tables)})", sales, ("day",), "fact_sales beside app.orders"),
        Suite(f"({COMPARED_MEMBERS.format(**tables)})", (*members, compared), title="dimensions beside app"),
    ]

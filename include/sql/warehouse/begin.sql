{#- Makes the row that says what a load is; like all that a load builds, it is gone after a crash of the database.

    locks   raw.positions, so that raw stays what it is until the transaction is committed
    makes   load -#}
set local lock_timeout = '{{ lock_seconds }}s';
lock table raw.positions in share mode;
set local lock_timeout = 0;

create unlogged table {{ build('load') }} (
  load uuid not null,
  run_id text not null,
  as_of timestamptz not null,
  business_timezone text not null,
  holiday_country text not null,
  is_full boolean not null,
  base uuid,
  base_as_of timestamptz,
  customers_seq bigint not null,
  customers_generation bigint not null,
  products_seq bigint not null,
  products_generation bigint not null,
  orders_seq bigint not null,
  orders_generation bigint not null,
  begun_at timestamptz not null default now()
);

{#- What every step of a load begins with, in the transaction that the caller opens and commits.

    in      step     its name
            makes    the tables and views that it and the steps after it make, which are dropped
            needs    a table of the step before it, and that step's name
    locks   raw.positions, so that raw stays what it is until the step is committed

    Raises SL011 loaded already, SL013 raw has moved since the load began, SL014 the step before has not been done. -#}
set local jit = off;
set local work_mem = '128MB';
set local lock_timeout = '{{ lock_seconds }}s';
lock table raw.positions in share mode;
set local lock_timeout = 0;

do $$
begin
  if exists (select from warehouse.load_log where load = '{{ load }}') then
    raise exception using errcode = 'SL011', message = 'load {{ load }} is published already: there is nothing to do';
  end if;
  if to_regclass('{{ build('load') }}') is null or to_regclass('{{ build(needs[0]) }}') is null then
    raise exception using errcode = 'SL014', message = 'load {{ load }}: {{ step }} needs what {{ needs[1] }} builds, which is not there: clear {{ needs[1] }}';
  end if;
  if not exists (select from {{ build('load') }}) then
    raise exception using errcode = 'SL014', message = 'load {{ load }}: its tables were emptied by a crash of the database: clear begin';
  end if;
  if exists (
    select
      from {{ build('load') }} l
      join raw.positions p on (p.entity, p.change_seq, p.generation) not in (
             ('customers', l.customers_seq, l.customers_generation),
             ('products', l.products_seq, l.products_generation),
             ('orders', l.orders_seq, l.orders_generation)
           )
  ) then
    raise exception using errcode = 'SL013', message = 'load {{ load }}: raw has been replicated again since the load began: clear begin';
  end if;
end
$$;

{% for name in makes -%}
drop table if exists {{ build(name) }} cascade;
{% endfor -%}

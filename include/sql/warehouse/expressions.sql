{#- What several steps say in the same words; `l` is the load's own row, which says whose days the days are. -#}

{#- the business day of a point in time; the ends of the calendar where the time zone leads beyond them -#}
{%- macro day(time) -%}
  greatest(date '0001-01-01', least(date '9999-12-31', ({{ time }} at time zone l.business_timezone)::date))
{%- endmacro -%}

{#- the key in dim_date of a day -#}
{%- macro date_key(day) -%}
  (extract(year from {{ day }}) * 10000 + extract(month from {{ day }}) * 100 + extract(day from {{ day }}))::integer
{%- endmacro -%}

{#- the stage of a customer at a time, by the days since sign-up -#}
{%- macro stage(time, signup) -%}
  case
    when {{ day(time) }} - {{ day(signup) }} < 7 then 'new'
    when {{ day(time) }} - {{ day(signup) }} < 30 then 'active'
    when {{ day(time) }} - {{ day(signup) }} < 90 then 'engaged'
    else 'dormant'
  end
{%- endmacro -%}

{#- whether the version of a customer is the one of a point in time; the current one has no end -#}
{%- macro valid_at(version, time) -%}
  ({{ time }} >= {{ version }}.valid_from and ({{ time }} < {{ version }}.valid_to or {{ version }}.is_current))
{%- endmacro -%}

{#- whether an order is a sale -#}
{%- macro is_sale(order) -%}
  {{ order }}.deleted_at is null and {{ order }}.status <> 'cancelled'
{%- endmacro -%}

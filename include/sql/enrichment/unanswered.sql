{#- The addresses of live customers that a geocoder is to be asked for: each once, however many customers have it.

    in      parts     the columns of the address that the geocoder reads
            needs     those of which it needs one
            %(geocoder)s, %(not_found_age)s (the interval after which it is asked again for what it did not find)
    reads   app.customers, operations.geocodes
    gives   the address's hash, its five parts (null where they are not read), and how many such addresses there are -#}
{%- from 'enrichment/address.sql' import address_key, has_address -%}
with addresses as (
  select distinct on (address) {{ address_key(parts, 'c') }} as address, {{ parts | join(', ') }}
    from app.customers c
   where c.deleted_at is null and {{ has_address(needs, 'c') }}
   order by address, c.id
)
select
  a.address,
{%- for part in ('street', 'city', 'state', 'zip_code', 'country') %}
  {{ 'a.' ~ part if part in parts else 'null' }},
{%- endfor %}
  count(*) over ()
from addresses a
left join operations.geocodes g on g.geocoder = %(geocoder)s and g.address = a.address
where g.address is null
   or g.latitude is null and g.answered_at < now() - %(not_found_age)s
order by random()  -- so that a few which always fail, and thereby end a run early, do not keep the others waiting for ever

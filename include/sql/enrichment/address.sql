{#- What enrichment means by an address, as SQL over the row `alias` of app.customers.

    address_key(parts, alias)  the hash of these parts, for which case, blanks and Unicode's forms make no difference.
                               (Where the database's locale is C, case makes one outside ASCII: one question more.)
    has_address(needs, alias)  whether one of the parts without which nobody can say where it lies is there -#}
{#- Unicode's blanks by their codes: which of them \s means hangs on the database's locale. -#}
{%- set blank = '\\s\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000' -%}
{%- macro joined(parts, alias) -%}
  {%- for part in parts %}chr(31) || coalesce({{ alias }}.{{ part }}, '') || {% endfor %}chr(31)
{%- endmacro -%}
{%- macro address_key(parts, alias) -%}
  {%- set text = joined(parts, alias) -%}
  sha256(convert_to(replace(replace(lower(regexp_replace(
    -- ASCII is normal already, and normalizing takes longer than all the rest
    case when octet_length({{ text }}) = length({{ text }}) then {{ text }} else normalize({{ text }}, NFKC) end,
    '[{{ blank }}]+', ' ', 'g')), ' ' || chr(31), chr(31)), chr(31) || ' ', chr(31)), 'UTF8'))
{%- endmacro -%}
{%- macro has_address(needs, alias) -%}
  ({% for part in needs %}{{ alias }}.{{ part }} ~ '[^{{ blank }}]'{{ ' or ' if not loop.last }}{% endfor %})
{%- endmacro -%}

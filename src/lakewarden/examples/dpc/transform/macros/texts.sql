{#- Hospitals submit texts. What cannot be read is null here, and VALUE_UNREADABLE counts it. -#}

{#- YYYYMMDD; null for 00000000 too, which stands for: still in hospital. -#}
{% macro as_date(text) -%}
    case when length({{ text }}) = 8 then try_strptime({{ text }}, '%Y%m%d')::date end
{%- endmacro %}

{% macro is_no_date(text) -%}
    coalesce({{ text }} <> '00000000' and {{ as_date(text) }} is null, false)
{%- endmacro %}

{% macro is_no_number(text, type) -%}
    ({{ text }} is not null and try_cast({{ text }} as {{ type }}) is null)
{%- endmacro %}

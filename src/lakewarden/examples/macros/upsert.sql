{#-
The newest row of each key of a raw table, as a SELECT of all of the table's columns:

    select customer_id, name, email
    from ({{ upsert(source('raw', 'customers'), key='customer_id') }})

A raw table is a log of deliveries. Newest is the row of the latest batch, within a batch that of
the last file, and within a file the last line. This is an order of the rows and not of the runs:
whichever batch ran last, was repeated or came late, the same log gives the same result.

key      a column, or a list of columns; NULLs in it are one value.
deleted  a condition (a column, or SQL over columns): a key whose newest row meets it is left out.
order    SQL expressions that go before batch, file and line. For a source that may deliver an
         older change after a newer one and says when each happened: order='changed_at'. A row
         without that time counts as the oldest.
-#}
{% macro upsert(relation, key, deleted=none, order=[]) -%}
select *
from (
    select *
    from {{ relation }}
    qualify row_number() over (
        partition by {{ column_list(key) }}
        order by {% for sql in log_order(order) %}{{ sql }} desc nulls last{{ ", " if not loop.last }}{% endfor %}
    ) = 1
)
{%- if deleted is not none %}
where not coalesce({{ deleted }}, false)
{%- endif %}
{%- endmacro %}


{#- What puts the rows of a raw table in order, oldest first: SQL expressions, as a list. -#}
{% macro log_order(order=[]) -%}
{{ return(as_list(order) + ['_batch', '_file', '_line']) }}
{%- endmacro %}


{#- A name, or a list of names, as quoted columns with commas between them. -#}
{% macro column_list(names) -%}
{% for name in as_list(names) %}{{ adapter.quote(name) }}{{ ", " if not loop.last }}{% endfor %}
{%- endmacro %}


{#- One thing or a list of things, as a list. -#}
{% macro as_list(things) -%}
{{ return([things] if things is string else (things | list)) }}
{%- endmacro %}

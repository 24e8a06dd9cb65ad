{#-
The history of each key of a raw table (a slowly changing dimension of type 2), as a SELECT: one
row for each time during which none of the tracked columns changed.

    {{ scd2(source('raw', 'customer_changes'), key='customer_id', tracked=['name', 'email'],
            effective_from='changed_at', deleted="operation = 'delete'") }}

Columns of the result: surrogate_key, those of `key`, `tracked` and `keep`, effective_from,
effective_to (NULL: still so), is_current.

Each row of the log states how its key is from `effective_from` on, and rows are taken in the
order of batch, file and line. A row replaces what earlier rows said of its time and of later
times, so a delivery can correct the past; of several rows of one time the last one counts. Then
equal states that follow one another become one row: the first one's. No row has a length of zero,
none overlap, and the current row says what upsert() says. All this is an order of the rows and
not of the runs: whichever batch ran last, was repeated or came late, the same log gives the same
history.

key             a column, or a list of columns; NULLs in it are one value.
tracked         the columns whose changes make history, compared by IS DISTINCT FROM.
effective_from  SQL over the row's columns, never NULL; cast to timestamptz. By default the day (of
                a month the first day) that its batch is named for, in UTC.
keep            more columns, as they were in the row that began the state.
deleted         a condition (a column, or SQL over columns): the key does not exist from then on.
                Its history ends there, and goes on if it comes back.
snapshot        true where each batch is the whole list: then a key that a batch lacks does not
                exist from that batch's time on. `effective_from` has to be the same for all rows
                of a batch (of several times it would be the latest). A batch without any row is
                not in the log, so it closes nothing.
order           SQL expressions that go before batch, file and line. For a source that may deliver
                an older change after a newer one, which is still true: order='changed_at'.

surrogate_key is made of the key and effective_from alone: 63 bits of the MD5 of each part of the
key as `<length in bytes>:<text>` (NULL: `-`), then of the microseconds since 1970 in the same way.
-#}
{% macro scd2(
    relation, key, tracked, effective_from=none, keep=[], deleted=none, snapshot=false, order=[]
) -%}
{%- set order = as_list(order) -%}
{%- set columns = (as_list(key) + as_list(tracked) + as_list(keep)) | unique | list -%}
{%- set made = ['surrogate_key', 'effective_from', 'effective_to', 'is_current'] -%}
{%- for name in columns if name | lower in made -%}
    {{ exceptions.raise_compiler_error("scd2 makes the column " ~ name ~ " itself: rename the relation's") }}
{%- endfor -%}
{%- if snapshot and order -%}
    {{ exceptions.raise_compiler_error("scd2: snapshots are in the order of their batches, and take no other") }}
{%- endif -%}
{%- set day = "timezone('UTC', cast(rpad(_batch, 10, '-01') as timestamp))" -%}
{%- set in_order -%}
partition by {{ column_list(key) }} order by {% for _ in order %}_scd2_order_{{ loop.index }} nulls first, {% endfor %}_scd2_batch, _scd2_file, _scd2_line
{%- endset -%}
with _scd2_stated as (
    select
        {{ column_list(columns) }},
        cast({{ effective_from or day }} as timestamptz) as _scd2_from,
        {{ "coalesce(" ~ deleted ~ ", false)" if deleted is not none else "false" }} as _scd2_gone,
        {%- for sql in order %}
        {{ sql }} as _scd2_order_{{ loop.index }},
        {%- endfor %}
        _batch as _scd2_batch,
        _file as _scd2_file,
        _line as _scd2_line
    from {{ relation }}
),
{%- if snapshot %}
_scd2_batches as (
    select
        _scd2_batch,
        lead(_scd2_batch) over (order by _scd2_batch) as next_batch,
        lead(max(_scd2_from)) over (order by _scd2_batch) as next_from
    from _scd2_stated
    group by _scd2_batch
),
_scd2_seen as (
    select
        {{ column_list(key) }},
        _scd2_batch,
        lead(_scd2_batch) over (partition by {{ column_list(key) }} order by _scd2_batch) as seen_next
    from (select distinct {{ column_list(key) }}, _scd2_batch from _scd2_stated)
),
{%- endif %}
_scd2_rows as (
    select * from _scd2_stated
    {%- if snapshot %}
    union all by name
    -- The first batch that lacks a key says that it is gone.
    select
        {% for name in as_list(key) %}_scd2_seen.{{ adapter.quote(name) }}, {% endfor %}
        _scd2_batches.next_from as _scd2_from,
        true as _scd2_gone,
        _scd2_batches.next_batch as _scd2_batch
    from _scd2_seen
    join _scd2_batches using (_scd2_batch)
    where _scd2_batches.next_batch is not null
        and _scd2_seen.seen_next is distinct from _scd2_batches.next_batch
    {%- endif %}
),
-- What no later row has replaced: times rise with the order from here on.
_scd2_standing as (
    select *
    from _scd2_rows
    qualify coalesce(_scd2_from < min(_scd2_from) over (
        {{ in_order }} rows between 1 following and unbounded following
    ), true)
),
_scd2_changes as (
    select *
    from _scd2_standing
    window _scd2_past as (partition by {{ column_list(key) }} order by _scd2_from)
    qualify row_number() over _scd2_past = 1
        or _scd2_gone <> lag(_scd2_gone) over _scd2_past
        {%- for name in as_list(tracked) %}
        or {{ adapter.quote(name) }} is distinct from lag({{ adapter.quote(name) }}) over _scd2_past
        {%- endfor %}
),
_scd2_history as (
    select
        *,
        lead(_scd2_from) over (partition by {{ column_list(key) }} order by _scd2_from) as _scd2_to
    from _scd2_changes
)
select
    {{ surrogate_key_of(as_list(key), '_scd2_from') }} as surrogate_key,
    {{ column_list(columns) }},
    _scd2_from as effective_from,
    _scd2_to as effective_to,
    _scd2_to is null as is_current
from _scd2_history
where not _scd2_gone
{%- endmacro %}


{#- A long that is made of the text of columns and of a time; see scd2. -#}
{% macro surrogate_key_of(columns, at) -%}
{%- set parts = [] -%}
{%- for name in columns -%}
    {%- do parts.append("cast(" ~ adapter.quote(name) ~ " as varchar)") -%}
{%- endfor -%}
{%- do parts.append("cast(epoch_us(" ~ at ~ ") as varchar)") -%}
cast(('0x' || substr(md5(
        {%- for part in parts %}
        coalesce(strlen({{ part }}) || ':' || {{ part }}, '-'){{ " ||" if not loop.last }}
        {%- endfor %}
    ), 1, 16))::ubigint >> 1 as bigint)
{%- endmacro %}

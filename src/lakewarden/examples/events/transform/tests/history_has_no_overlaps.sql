-- The spans of a customer have a length, end before the next one begins, and only the last is open.
select *
from (
    select
        natural_key,
        effective_from,
        effective_to,
        is_current,
        lead(effective_from) over (partition by natural_key order by effective_from) as next_from
    from {{ ref('scd_type2') }}
)
where effective_to <= effective_from
    or next_from < coalesce(effective_to, 'infinity'::timestamptz)
    or is_current <> (effective_to is null)

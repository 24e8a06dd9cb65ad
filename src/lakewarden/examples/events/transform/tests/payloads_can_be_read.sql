-- A payload is a JSON object, and a purchase says what it cost, in whole cents.
select event_id
from (
    select
        event_id,
        event_type,
        -- Only what is JSON can be looked into.
        case when json_valid(payload) then json_type(payload) else 'NONE' end as kind,
        case when json_valid(payload) then try_cast(payload ->> '$.cents' as bigint) end as cents
    from {{ ref('events') }}
)
where kind <> 'OBJECT'
    or (event_type = 'purchase' and coalesce(cents, -1) < 0)

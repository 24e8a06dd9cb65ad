-- Copies of an event differ in when they arrived, and in nothing else.
select event_id
from {{ source('raw', 'event_stream') }}
group by event_id
having count(distinct row(
    event_type, event_timestamp, user_id, session_id, ip_address, user_agent, payload
)) > 1

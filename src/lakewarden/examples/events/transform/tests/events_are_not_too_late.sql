{{ config(severity='warn') }}
-- An event that arrives more than three days late changes figures that somebody has used.
select event_id, event_timestamp, ingested_at
from {{ ref('events') }}
where ingested_at - event_timestamp > interval 3 days

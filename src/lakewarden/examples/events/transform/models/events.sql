-- Every event once. Its copies say the same (the test copies_agree holds that) but for when they
-- arrived; the newest is taken, so that a delivery that mends an event is heard, and the first
-- tells when it was known.
select
    newest.event_id,
    newest.event_type,
    newest.event_timestamp,
    newest.user_id,
    newest.session_id,
    newest.ip_address,
    newest.user_agent,
    newest.payload,
    copies.ingested_at,
    copies.first_batch,
    copies.copies
from ({{ upsert(source('raw', 'event_stream'), key='event_id') }}) as newest
join (
    select
        event_id,
        min(ingested_at) as ingested_at,
        min(_batch) as first_batch,
        count(*) as copies
    from {{ source('raw', 'event_stream') }}
    group by event_id
) as copies using (event_id)

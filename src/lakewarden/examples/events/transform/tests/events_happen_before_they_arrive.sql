-- A minute is allowed to clocks that do not agree. An event arrives on the day of its batch.
select event_id, _batch, _file, _line
from {{ source('raw', 'event_stream') }}
where event_timestamp > ingested_at + interval 1 minute
    or strftime(ingested_at at time zone 'UTC', '%Y-%m-%d') <> _batch

-- Every event that was delivered is in the mart, once, with all its copies: hour by hour.
with delivered as (
    select
        date_trunc('hour', event_timestamp) as hour,
        count(distinct event_id) as events,
        count(*) as copies
    from {{ source('raw', 'event_stream') }}
    group by all
),
published as (
    select
        date_trunc('hour', event_timestamp) as hour,
        count(*) as events,
        sum(copies) as copies
    from {{ ref('events') }}
    group by all
)
(select * from delivered except all select * from published)
union all
(select * from published except all select * from delivered)

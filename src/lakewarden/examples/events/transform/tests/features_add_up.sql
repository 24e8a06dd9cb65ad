-- A user has one row a day, and its events are those of the mart.
with counted as (
    select
        user_id as entity_id,
        date_trunc('day', event_timestamp at time zone 'UTC') + interval 1 day as known_at,
        cast(count(*) as double) as events
    from {{ ref('events') }}
    group by all
),
published as (
    select
        entity_id,
        feature_timestamp at time zone 'UTC' as known_at,
        feature_a as events
    from {{ ref('feature_table') }}
)
(select * from counted except all select * from published)
union all
(select * from published except all select * from counted)

-- The mart holds each flight once: its totals are those of staging, route by route. No flight is
-- in fair and in bad weather both.
with staged as (
    select
        origin,
        dest,
        count(*) as flights,
        count(*) filter (where is_cancelled) as cancelled,
        count(*) filter (where is_diverted) as diverted
    from {{ ref('stg_flights') }}
    group by origin, dest
),
published as (
    select origin, dest, flights, cancelled, diverted
    from {{ ref('route_performance') }}
    where flights_fair_weather + flights_bad_weather <= flights
)
(select * from staged except all select * from published)
union all
(select * from published except all select * from staged)

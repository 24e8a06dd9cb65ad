-- The mart holds each flight once: its totals are those of staging, day by day and carrier by carrier.
with staged as (
    select
        flight_date,
        carrier,
        count(*) as flights,
        count(*) filter (where is_cancelled) as cancelled,
        count(*) filter (where is_diverted) as diverted
    from {{ ref('stg_flights') }}
    group by flight_date, carrier
),
published as (
    select flight_date, carrier, flights, cancelled, diverted from {{ ref('daily_delays') }}
)
(select * from staged except all select * from published)
union all
(select * from published except all select * from staged)

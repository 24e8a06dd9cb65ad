{{ config(severity='warn') }}
-- A day with less than half of the usual number of flights, or none from one of the airports, may
-- be a delivery that was cut short before it was counted. The real days hold 634 to 1,014.
with days as (
    select flight_date, count(*) as flights, count(distinct origin) as origins
    from {{ ref('stg_flights') }}
    group by flight_date
)
select *
from days
where flights < 0.5 * (select median(flights) from days) or origins < 3

-- The delivery of a day holds that day's flights and no others; and the three ways in which the
-- source tells the hour (its date and hour, the scheduled time, the instant) agree.
select flight_key, _batch, hour, minute, sched_dep_time, time_hour
from {{ ref('stg_flights') }}
where strftime(flight_date, '%Y-%m-%d') <> _batch
    or hour * 100 + minute <> sched_dep_time
    or time_hour at time zone 'America/New_York'
        <> flight_date::timestamp + to_hours(hour)

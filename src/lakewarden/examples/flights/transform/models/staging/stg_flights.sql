-- One row a scheduled flight, of all days that were delivered.
select
    strftime(make_date(year, month, day), '%Y-%m-%d')
        || '|' || carrier || '|' || flight || '|' || origin || '|' || dest as flight_key,
    make_date(year, month, day) as flight_date,
    carrier,
    flight,
    tailnum,
    origin,
    dest,
    sched_dep_time,
    sched_arr_time,
    dep_time,
    arr_time,
    dep_delay,
    arr_delay,
    dep_time is null as is_cancelled,
    dep_time is not null and arr_delay is null as is_diverted,
    air_time,
    distance,
    hour,
    minute,
    time_hour,
    origin || '|' || strftime(time_hour at time zone 'UTC', '%Y-%m-%dT%H') as weather_key,
    _batch
from {{ source('raw', 'flights') }}

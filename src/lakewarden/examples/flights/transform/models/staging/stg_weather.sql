-- The latest delivery holds the year so far. Keyed by the hour in UTC: the local hour of the clock
-- change comes twice.
select
    origin || '|' || strftime(time_hour at time zone 'UTC', '%Y-%m-%dT%H') as weather_key,
    origin,
    time_hour,
    temp,
    dewp,
    humid,
    wind_dir,
    wind_speed,
    wind_gust,
    precip,
    pressure,
    visib,
    -- Rain or snow, fog (less than three miles: instrument flight rules), or gusts of 35 miles an hour.
    precip > 0 or visib < 3 or coalesce(wind_gust, 0) >= 35 as is_bad
from {{ source('raw', 'weather') }}
where _batch = (select max(_batch) from {{ source('raw', 'weather') }})

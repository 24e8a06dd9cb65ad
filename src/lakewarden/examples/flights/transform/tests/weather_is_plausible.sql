{{ config(severity='warn') }}
-- One observation of 2013 tells of a wind of 1,048 miles an hour.
select weather_key, temp, humid, wind_speed, precip, visib
from {{ ref('stg_weather') }}
where temp not between -40 and 130
    or humid not between 0 and 100
    or wind_speed not between 0 and 250
    or precip < 0
    or visib < 0

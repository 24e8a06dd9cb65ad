-- What never departed has no delay, no arrival and no time in the air; what has a delay on arrival
-- was in the air.
select flight_key, dep_time, dep_delay, arr_time, arr_delay, air_time
from {{ ref('stg_flights') }}
where (dep_time is null) <> (dep_delay is null)
    or (dep_time is null and (arr_time is not null or arr_delay is not null or air_time is not null))
    or (arr_delay is null) <> (air_time is null)
    or (arr_delay is not null and arr_time is null)
    or air_time <= 0
    or distance <= 0

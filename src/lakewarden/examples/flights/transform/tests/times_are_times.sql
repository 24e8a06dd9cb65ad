-- Every time is one of a clock: hours to 24, minutes to 59, and 2400 is the last.
select flight_key, dep_time, sched_dep_time, arr_time, sched_arr_time
from {{ ref('stg_flights') }}
where dep_time not between 1 and 2400 or dep_time % 100 > 59
    or arr_time not between 1 and 2400 or arr_time % 100 > 59
    or sched_dep_time not between 0 and 2400 or sched_dep_time % 100 > 59
    or sched_arr_time not between 0 and 2400 or sched_arr_time % 100 > 59

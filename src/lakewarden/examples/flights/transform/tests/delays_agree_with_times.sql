-- A delay is the time less the scheduled time; both are hours and minutes of a clock, so a flight
-- that leaves after midnight (or lands in another day) is off by whole days and by nothing else.
with in_minutes as (
    select
        flight_key,
        dep_delay,
        arr_delay,
        dep_time // 100 * 60 + dep_time % 100 as dep,
        arr_time // 100 * 60 + arr_time % 100 as arr,
        sched_dep_time // 100 * 60 + sched_dep_time % 100 as sched_dep,
        sched_arr_time // 100 * 60 + sched_arr_time % 100 as sched_arr
    from {{ ref('stg_flights') }}
)
select *
from in_minutes
where (dep - sched_dep - dep_delay) % 1440 <> 0
    or (arr - sched_arr - arr_delay) % 1440 <> 0

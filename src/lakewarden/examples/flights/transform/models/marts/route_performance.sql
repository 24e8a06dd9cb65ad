select
    flights.origin,
    flights.dest,
    any_value(airports.name) as dest_name,
    max(flights.distance) as distance,
    count(*) as flights,
    count(*) filter (where flights.is_cancelled) as cancelled,
    count(*) filter (where flights.is_diverted) as diverted,
    round(avg(flights.air_time), 2)::decimal(7, 2) as mean_air_time,
    round(avg(flights.dep_delay), 2)::decimal(7, 2) as mean_dep_delay,
    round(avg(flights.arr_delay), 2)::decimal(7, 2) as mean_arr_delay,
    count(*) filter (where not weather.is_bad) as flights_fair_weather,
    count(*) filter (where weather.is_bad) as flights_bad_weather,
    round(avg(flights.dep_delay) filter (where not weather.is_bad), 2)::decimal(7, 2)
        as mean_dep_delay_fair_weather,
    round(avg(flights.dep_delay) filter (where weather.is_bad), 2)::decimal(7, 2)
        as mean_dep_delay_bad_weather
from {{ ref('stg_flights') }} as flights
left join {{ ref('stg_airports') }} as airports on airports.faa = flights.dest
left join {{ ref('stg_weather') }} as weather using (weather_key)
group by flights.origin, flights.dest

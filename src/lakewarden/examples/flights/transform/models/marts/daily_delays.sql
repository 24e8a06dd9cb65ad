select
    flights.flight_date,
    flights.carrier,
    any_value(airlines.name) as carrier_name,
    count(*) as flights,
    count(*) filter (where flights.is_cancelled) as cancelled,
    count(*) filter (where flights.is_diverted) as diverted,
    count(*) filter (where flights.dep_delay >= 15) as departed_late,
    count(*) filter (where flights.arr_delay >= 15) as arrived_late,
    round(avg(flights.dep_delay), 2)::decimal(7, 2) as mean_dep_delay,
    round(avg(flights.arr_delay), 2)::decimal(7, 2) as mean_arr_delay,
    max(flights.dep_delay) as worst_dep_delay
from {{ ref('stg_flights') }} as flights
left join {{ ref('stg_airlines') }} as airlines using (carrier)
group by flights.flight_date, flights.carrier

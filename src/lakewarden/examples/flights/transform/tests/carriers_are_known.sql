-- Every carrier is in the list of airlines, once there is one.
select distinct flights.carrier
from {{ ref('stg_flights') }} as flights
anti join {{ ref('stg_airlines') }} as airlines using (carrier)
where exists (select 1 from {{ ref('stg_airlines') }})

-- The latest delivery is the whole list.
select tailnum, year, type, manufacturer, model, engines, seats, speed, engine
from {{ source('raw', 'planes') }}
where _batch = (select max(_batch) from {{ source('raw', 'planes') }})

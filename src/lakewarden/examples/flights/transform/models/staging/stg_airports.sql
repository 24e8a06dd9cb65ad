-- The latest delivery is the whole list.
select faa, name, lat, lon, alt, tz, dst, tzone
from {{ source('raw', 'airports') }}
where _batch = (select max(_batch) from {{ source('raw', 'airports') }})

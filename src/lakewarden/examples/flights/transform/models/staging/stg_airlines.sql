-- The latest delivery is the whole list.
select carrier, name
from {{ source('raw', 'airlines') }}
where _batch = (select max(_batch) from {{ source('raw', 'airlines') }})

-- One row a hospital, as its newest month describes it, whichever month was run last.
select
    facility_cd,
    report_year,
    facility_name,
    bed_function,
    facility_group,
    prefecture,
    city,
    _batch as last_month
from {{ source('raw', 'y3') }}
qualify row_number() over (partition by facility_cd order by _batch desc, report_year desc, _file, _line)
    = 1

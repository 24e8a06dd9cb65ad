-- The mart holds each case of these months once: none is lost, or doubled by what is joined to it.
with staged as (
    select _batch, facility_cd, count(*) as cases
    from {{ ref('stg_y1_inpatient') }}
    group by all
),
published as (
    select _batch, facility_cd, count(*) as cases
    from {{ ref('fact_case_summary') }}
    where {{ in_batches() }}
    group by all
)
(select * from staged except select * from published)
union all
(select * from published except select * from staged)

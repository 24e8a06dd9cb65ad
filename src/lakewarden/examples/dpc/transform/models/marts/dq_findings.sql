-- What each rule found, by hospital and month: counts, and no key of a patient. The tests read it,
-- so what is published is what was judged.
with
{%- set files = {
    'y1': ['data_id', 'admission_date', 'same_day_count', 'summary_no', 'code', 'seq'],
    'ef_in': ['data_id', 'admission_date', 'data_category', 'seq_no', 'item_no'],
    'd': ['data_id', 'admission_date', 'data_category', 'seq_no'],
} %}
{%- for file, key in files.items() %}
repeated_{{ file }} as (
    select _batch, facility_cd, {{ key | join(', ') }}
    from {{ source('raw', file) }}
    where {{ in_batches() }}
    group by all
    having count(*) > 1
),
{%- endfor %}
services as (
    select
        _batch,
        facility_cd,
        count(*) filter (where services.is_unreadable) as unreadable,
        count(*) filter (where master.service_code is null) as unknown,
        count(*) filter (
            where services.yen_flag is null
                or services.yen_flag not in ('0', '1')
                or services.yen_flag <> master.yen_flag
        ) as wrong_unit
    from {{ ref('stg_ef_inpatient') }} as services
    left join {{ ref('service_codes') }} as master using (service_code)
    group by all
),
common_ids as (
    select * from {{ ref('stg_k_common_id') }} where {{ in_batches() }}
),
cases as (
    select _batch, facility_cd, data_id, admission, 1 as in_y1, 0 as in_k
    from {{ ref('stg_y1_inpatient') }}
    union all
    select _batch, facility_cd, data_id, admission, 0, 1 from common_ids
),
unmatched as (
    select _batch, facility_cd, data_id, admission
    from cases
    group by all
    having sum(in_y1) <> sum(in_k)
),
-- By admission: of two on one day, the first has the costs of both.
free as (
    select _batch, facility_cd, data_id, admission_date
    from {{ ref('fact_case_summary') }}
    where {{ in_batches() }}
    group by all
    having sum(service_points + inclusive_points + adjust_points) = 0
),
found as (
    select 'PK_DUPLICATE_Y1' as rule, _batch, facility_cd, 1 as findings
    from (
        select distinct _batch, facility_cd, data_id, admission_date, same_day_count, summary_no
        from repeated_y1
    )
    union all
    select 'PK_DUPLICATE_EF', _batch, facility_cd, 1 from repeated_ef_in
    union all
    select 'PK_DUPLICATE_D', _batch, facility_cd, 1 from repeated_d
    union all
    select 'DATE_INCONSISTENCY', _batch, facility_cd, 1
    from {{ ref('stg_y1_inpatient') }}
    where discharge_date < admission_date
    union all
    select 'DATE_INCONSISTENCY', _batch, facility_cd, 1
    from common_ids
    where discharge_date < admission_date
    union all
    select 'CASE_K_COUNT_MISMATCH', _batch, facility_cd, 1 from unmatched
    union all
    select 'VALUE_UNREADABLE', _batch, facility_cd, 1
    from {{ ref('stg_y1_inpatient') }}
    where is_unreadable
    union all
    select 'VALUE_UNREADABLE', _batch, facility_cd, unreadable from services
    union all
    select 'VALUE_UNREADABLE', _batch, facility_cd, 1 from common_ids where is_unreadable
    union all
    select 'VALUE_UNREADABLE', _batch, facility_cd, 1
    from {{ ref('stg_d_inclusive') }}
    where is_unreadable
    union all
    select 'YEN_POINT_FLAG_MISMATCH', _batch, facility_cd, wrong_unit from services
    union all
    select 'SERVICE_CODE_NOT_FOUND', _batch, facility_cd, unknown from services
    union all
    select 'ZERO_COST_CASE', _batch, facility_cd, 1 from free
)
select _batch, facility_cd, rule, sum(findings)::bigint as findings
from found
group by all
having sum(findings) > 0

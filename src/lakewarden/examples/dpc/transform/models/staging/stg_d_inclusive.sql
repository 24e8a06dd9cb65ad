-- One row a payment: inclusive points (93), what adjusts them (94), or why there are none (01).
select
    _batch,
    facility_cd,
    data_id,
    admission_date as admission,
    data_category,
    seq_no as segment_no,
    dpc_code,
    {{ as_date('start_date') }} as start_date,
    {{ as_date('end_date') }} as end_date,
    case when data_category = '93' then
        coalesce(try_cast(procedure_points as int), 0)::bigint
            * coalesce(try_cast(times as smallint), 1)
    end as inclusive_points,
    case when data_category = '94' then
        coalesce(try_cast(procedure_points as int), 0)::bigint
            * coalesce(try_cast(times as smallint), 1)
    end as adjust_points,
    case when data_category = '01' then claim_code end as reason_code,
    {{ is_no_date('start_date') }} or {{ is_no_date('end_date') }}
        or {{ is_no_number('procedure_points', 'int') }}
        or {{ is_no_number('times', 'smallint') }} as is_unreadable
from {{ source('raw', 'd') }}
where {{ in_batches() }}

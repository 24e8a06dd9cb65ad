-- One row a service: the procedures (detail 000) and their items. What a procedure costs, with its
-- drugs and materials, stands in its own record; to add its items would count it twice.
select
    _batch,
    facility_cd,
    data_id,
    admission_date as admission,
    data_category,
    seq_no,
    item_no as detail_no,
    {{ as_date('service_date') }} as service_date,
    claim_code as service_code,
    unit_code,
    try_cast(quantity as decimal(10, 3)) as qty,
    try_cast(amount as decimal(15, 3)) as points,
    yen_point_flag as yen_flag,
    doctor_code,
    case when item_no = '000' then
        coalesce(try_cast(times as smallint), 1) * (
            coalesce(try_cast(procedure_points as int), 0)::bigint
            + coalesce(try_cast(drug_points as int), 0)::bigint
            + coalesce(try_cast(material_points as int), 0)::bigint
        )
    end as procedure_points,
    {{ is_no_date('service_date') }}
        or {{ is_no_number('quantity', 'decimal(10, 3)') }}
        or {{ is_no_number('amount', 'decimal(15, 3)') }}
        or {{ is_no_number('times', 'smallint') }}
        or {{ is_no_number('procedure_points', 'int') }}
        or {{ is_no_number('drug_points', 'int') }}
        or {{ is_no_number('material_points', 'int') }} as is_unreadable
from {{ source('raw', 'ef_in') }}
where {{ in_batches() }}

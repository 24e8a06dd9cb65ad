-- One row a case and month, of all months: patients come back in later ones.
select
    _batch,
    facility_cd,
    data_id,
    admission_date as admission,
    {{ as_date('admission_date') }} as admission_date,
    {{ as_date('discharge_date') }} as discharge_date,
    common_id as common_patient_id,
    birth_month,
    insurer_no,
    subscriber_no,
    {{ is_no_date('admission_date') }} or {{ is_no_date('discharge_date') }} as is_unreadable
from {{ source('raw', 'k') }}

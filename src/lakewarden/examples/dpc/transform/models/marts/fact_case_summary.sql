-- One row a case and month in which it was submitted. A stay over two months has two rows, each
-- with what that month cost; the first has no discharge.
with
services as (
    select
        _batch,
        facility_cd,
        data_id,
        admission,
        count(*) filter (where detail_no = '000') as services,
        sum(procedure_points)::bigint as service_points
    from {{ ref('stg_ef_inpatient') }}
    group by all
),
payments as (
    select
        _batch,
        facility_cd,
        data_id,
        admission,
        sum(inclusive_points)::bigint as inclusive_points,
        sum(adjust_points)::bigint as adjust_points,
        max(reason_code) as reason_code,
        -- Of the newest period; of two, the larger: any order of records gives the same.
        max({'day': coalesce(end_date, date '0001-01-01'), 'code': dpc_code}).code as dpc_code
    from {{ ref('stg_d_inclusive') }}
    group by all
),
days as (
    select
        _batch,
        facility_cd,
        data_id,
        admission,
        eval_date,
        count(*) filter (where item_code = 'TAR0010') > 0 as is_judged,
        sum(severity_score)::int as severity
    from {{ ref('stg_h_daily') }}
    group by all
),
severity as (
    select
        _batch,
        facility_cd,
        data_id,
        admission,
        count(*) filter (where is_judged) as judged_days,
        max(severity) as top_severity
    from days
    group by all
),
patients as (
    select _batch, facility_cd, data_id, admission, max(common_patient_id) as common_patient_id
    from {{ ref('stg_k_common_id') }}
    where {{ in_batches() }}
    group by all
)
select
    cases._batch,
    cases.facility_cd,
    cases.data_id,
    cases.admission_date,
    cases.same_day_count,
    cases.discharge_date,
    (cases.discharge_date - cases.admission_date + 1)::int as days,
    patients.common_patient_id,
    cases.sex_code,
    cases.age,
    payments.dpc_code,
    cases.main_icd10,
    cases.outcome_code,
    cases.is_emergency,
    cases.has_surgery,
    cases.height_cm,
    cases.weight_kg,
    coalesce(services.services, 0) as services,
    coalesce(services.service_points, 0) as service_points,
    coalesce(payments.inclusive_points, 0) as inclusive_points,
    coalesce(payments.adjust_points, 0) as adjust_points,
    payments.reason_code,
    coalesce(severity.judged_days, 0) as judged_days,
    severity.top_severity
from {{ ref('stg_y1_inpatient') }} as cases
left join patients using (_batch, facility_cd, data_id, admission)
{%- for one in ['services', 'payments', 'severity'] %}
left join {{ one }}
    on cases.is_first_of_day
    and {{ one }}._batch = cases._batch
    and {{ one }}.facility_cd = cases.facility_cd
    and {{ one }}.data_id = cases.data_id
    and {{ one }}.admission = cases.admission
{%- endfor %}

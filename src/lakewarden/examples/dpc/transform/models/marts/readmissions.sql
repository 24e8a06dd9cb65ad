-- Admissions within 30 days of a discharge of the same common patient, from any hospital, in any
-- month: each once, with the latest discharge before it. Made of all months, from the K files
-- alone, which have the dates of every case: so a month that is run later, or again, changes
-- exactly the readmissions that it bears on.
--
-- A stay that went on when its month was submitted comes again in the next one: the newest month's
-- word counts. Who lies in two hospitals at once is not discharged from the first when the second
-- admits. Of two stays on one day the one that ends earlier is the earlier; of two visits on the
-- same day the order of hospitals decides, so that one is the other's readmission, and not both.
with
stays as (
    select common_patient_id, facility_cd, data_id, admission_date, discharge_date
    from {{ ref('stg_k_common_id') }}
    where admission_date is not null
    qualify row_number() over (
        partition by facility_cd, data_id, admission_date
        order by _batch desc, discharge_date desc nulls last, common_patient_id
    ) = 1
),
pairs as (
    select
        later.common_patient_id,
        later.facility_cd,
        later.data_id,
        later.admission_date,
        earlier.facility_cd as from_facility_cd,
        earlier.data_id as from_data_id,
        earlier.admission_date as from_admission_date,
        earlier.discharge_date,
        (later.admission_date - earlier.discharge_date)::int as days
    from stays as later
    inner join stays as earlier
        on earlier.common_patient_id = later.common_patient_id
        and earlier.discharge_date <= later.admission_date
        and earlier.discharge_date >= later.admission_date - 30
        and (
            earlier.admission_date < later.admission_date
            -- Both on one day, and the earlier ended on it.
            or coalesce(later.discharge_date > earlier.discharge_date, true)
            or (
                later.discharge_date = earlier.discharge_date
                and (earlier.facility_cd, earlier.data_id) < (later.facility_cd, later.data_id)
            )
        )
)
select
    common_patient_id,
    facility_cd,
    data_id,
    admission_date,
    strftime(admission_date, '%Y-%m') as month,
    from_facility_cd,
    from_data_id,
    from_admission_date,
    discharge_date,
    days,
    facility_cd = from_facility_cd as is_same_facility
from pairs
qualify row_number() over (
    partition by facility_cd, data_id, admission_date
    order by discharge_date desc, from_admission_date desc, from_facility_cd, from_data_id
) = 1

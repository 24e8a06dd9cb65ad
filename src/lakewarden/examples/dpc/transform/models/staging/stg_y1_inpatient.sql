-- One row a case: the records of Form 1 that tell of a whole stay (summary number 0), side by side.
-- A record that comes twice with two contents gives the larger one, whatever their order; such a
-- month is refused by PK_DUPLICATE_Y1.
with cases as (
    select
        _batch,
        facility_cd,
        data_id,
        admission_date as admission,
        same_day_count,
        {{ as_date('admission_date') }} as admission_date,
        max(payload_1) filter (where code = 'A000030') as discharge,
        max(payload_2) filter (where code = 'A000010') as sex_code,
        max(payload_1) filter (where code = 'A000010') as birth,
        max(payload_2) filter (where code = 'A006010') as main_icd10,
        max(payload_3) filter (where code = 'A000030') as outcome_code,
        -- 100 and 101 are planned; 2 and 3 begin the kinds of emergency.
        max(payload_5) filter (where code = 'A000020') >= '2' as is_emergency,
        count(*) filter (where code = 'A007010') > 0 as has_surgery,
        max(payload_2) filter (where code = 'A001010') as height,
        max(payload_3) filter (where code = 'A001010') as weight
    from {{ source('raw', 'y1') }}
    where summary_no = '0' and {{ in_batches() }}
    group by all
)
select
    *,
    {{ as_date('discharge') }} as discharge_date,
    {{ as_date('birth') }} as birth_date,
    date_sub('year', {{ as_date('birth') }}, admission_date)::int as age,
    try_cast(height as decimal(5, 1)) as height_cm,
    try_cast(weight as decimal(5, 1)) as weight_kg,
    {{ is_no_date('admission') }} or {{ is_no_date('discharge') }} or {{ is_no_date('birth') }}
        or {{ is_no_number('height', 'decimal(5, 1)') }}
        or {{ is_no_number('weight', 'decimal(5, 1)') }} as is_unreadable,
    -- Services and payments do not say which admission of the day they are for: the first has them.
    row_number() over (
        partition by _batch, facility_cd, data_id, admission order by same_day_count
    ) = 1 as is_first_of_day
from cases

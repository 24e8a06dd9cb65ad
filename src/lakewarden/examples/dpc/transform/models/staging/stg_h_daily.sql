-- One row a day and kind of evaluation; A and B items (ASS0013, ASS0021) are added up.
select
    _batch,
    facility_cd,
    data_id,
    admission_date as admission,
    eval_date,
    seq as seq_no,
    code as item_code,
    case when code in ('ASS0013', 'ASS0021') then
        {%- for number in range(1, 11) %}
        coalesce(try_cast(payload_{{ number }} as smallint)::int, 0){{ ' +' if not loop.last }}
        {%- endfor %}
    end as severity_score
from {{ source('raw', 'h') }}
where {{ in_batches() }}

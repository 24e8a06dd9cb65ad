-- What is known of a user at the end of a day. A late event changes the day on which it happened
-- and the six days after it, so the table is made anew from all events, and not batch by batch.
-- Nothing here asks for the time of the run: the same events give the same features.
with days as (
    select
        user_id,
        cast(event_timestamp at time zone 'UTC' as date) as day,
        count(*) as events,
        -- Cents are whole, so their sum is the same in any order. What cannot be read is left to
        -- the test payloads_can_be_read, which refuses it by name.
        sum(case
            when event_type = 'purchase' and json_valid(payload)
                then try_cast(payload ->> '$.cents' as bigint)
        end) as cents,
        json_object(
            {% for type in ['page_view', 'search', 'add_to_cart', 'purchase', 'sign_in'] -%}
            '{{ type }}', count(*) filter (where event_type = '{{ type }}')
            {{- "," if not loop.last }}
            {% endfor %}
        ) as by_type,
        max(ingested_at) as ingested_at
    from {{ ref('events') }}
    group by all
),
weeks as (
    select
        *,
        timezone('UTC', cast(day + 1 as timestamp)) as known_at,
        coalesce(sum(cents) over week, 0) / 100 as spent,
        max(ingested_at) over week as newest
    from days
    window week as (
        partition by user_id order by day range between interval 6 days preceding and current row
    )
)
select
    weeks.user_id as entity_id,
    weeks.known_at as feature_timestamp,
    'daily_activity' as feature_set,
    cast(weeks.events as double) as feature_a,
    cast(weeks.spent as double) as feature_b,
    customers.category as feature_c,
    cast(weeks.by_type as varchar) as feature_vector,
    '1' as model_version,
    weeks.newest as computed_at
from weeks
-- As the customer was then, and not as they are now.
left join {{ ref('scd_type2') }} as customers
    on customers.natural_key = weeks.user_id
    and customers.effective_from < weeks.known_at
    and (customers.effective_to is null or customers.effective_to >= weeks.known_at)

-- Who is a customer now, and how, is what the newest change of each says.
(
    select natural_key, name, email, category, status
    from {{ ref('scd_type2') }}
    where is_current
    except all
    select customer_id, name, email, category, status
    from ({{ upsert(source('raw', 'customer_changes'), key='customer_id', deleted="operation = 'delete'") }})
)
union all
(
    select customer_id, name, email, category, status
    from ({{ upsert(source('raw', 'customer_changes'), key='customer_id', deleted="operation = 'delete'") }})
    except all
    select natural_key, name, email, category, status
    from {{ ref('scd_type2') }}
    where is_current
)

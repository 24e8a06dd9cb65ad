-- Customers and their history. A change that changes nothing makes no row; a customer who left and
-- came back has a gap.
select
    surrogate_key,
    customer_id as natural_key,
    name,
    email,
    category,
    status,
    effective_from,
    effective_to,
    is_current,
    source_system,
    changed_at as updated_at
from (
    {{ scd2(
        source('raw', 'customer_changes'),
        key='customer_id',
        tracked=['name', 'email', 'category', 'status'],
        effective_from='changed_at',
        keep=['source_system', 'changed_at'],
        deleted="operation = 'delete'"
    ) }}
)

-- A row is an object that was erased, or a part of one, and is held all the same, as
-- after the restore of a backup: `run.py erase --again` of its connection erases it
-- once more.
with raw_objects as (
    select * from {{ ref('raw_objects') }}
)

select
    idem_key,
    merged_by as correlation_id
from raw_objects
where
    {{ is_erased('idem_key') }}
    and not exists (
        select 1
        from {{ ref('accepted_violations') }} as accepted
        where
            accepted.correlation_id = raw_objects.merged_by
            and accepted.test = 'assert_erasures'
    )

-- A row is an object that was erased and is held all the same, as after the restore of
-- a backup: `run.py erase --again` of its connection erases it once more.
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

erasures as (
    select * from {{ source('erasure', 'erasures') }}
)

select
    raw_objects.idem_key,
    raw_objects.merged_by
from raw_objects
inner join erasures
    on {{ sha256_hex('raw_objects.idem_key') }} = erasures.key_hash
where not exists (
    select 1
    from {{ ref('accepted_violations') }} as accepted
    where
        accepted.correlation_id = raw_objects.merged_by
        and accepted.test = 'assert_erasures'
)

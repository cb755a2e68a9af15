-- A row is an object whose times contradict each other: seen before it was first seen,
-- changed or deleted outside of the time it was seen in.
select
    raw_objects.idem_key,
    raw_objects.merged_by
from {{ ref('raw_objects') }} as raw_objects
where
    raw_objects.last_seen >= {{ days_ago(var('acceptance_days')) }}
    and (
        raw_objects.first_seen > raw_objects.last_seen
        or raw_objects.changed_at not between raw_objects.first_seen and raw_objects.last_seen
        or (raw_objects.deleted_at is not null and raw_objects.deleted_at != raw_objects.changed_at)
    )
    and not exists (
        select 1
        from {{ ref('accepted_violations') }} as accepted
        where
            accepted.correlation_id = raw_objects.merged_by
            and accepted.test = 'assert_object_timestamps'
    )

-- A row is an object whose times contradict each other: seen before it was first seen,
-- changed or deleted outside of the time it was seen in.
select
    objects.idem_key,
    objects.merged_by
from {{ ref('raw_objects') }} as objects
where
    objects.last_seen >= {{ days_ago(var('acceptance_days')) }}
    and (
        objects.first_seen > objects.last_seen
        or objects.changed_at not between objects.first_seen and objects.last_seen
        or (objects.deleted_at is not null and objects.deleted_at != objects.changed_at)
    )
    and not exists (
        select 1
        from {{ ref('accepted_violations') }} as accepted
        where
            accepted.correlation_id = objects.merged_by
            and accepted.test = 'assert_object_timestamps'
    )

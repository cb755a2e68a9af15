{{ config(tags=['each_run']) }}
-- A row is an object whose times contradict each other: seen before it was first seen,
-- changed or deleted outside of the time it was seen in.
with raw_objects as (
    select * from {{ ref('raw_objects') }}
),

excused as (
    select correlation_id
    from {{ ref('accepted_violations') }}
    where test = 'assert_object_timestamps'
)

select
    idem_key,
    merged_by as correlation_id
from raw_objects
where
    {% if is_full_check() %}last_seen >= {{ days_ago(var('acceptance_days')) }}
    {% else %}merged_by = {{ text_literal(correlation_id()) }}
    and {{ in_scope('raw_objects') }}
    {% endif %}and (
        first_seen > last_seen
        or changed_at not between first_seen and last_seen
        or (deleted_at is not null and deleted_at != changed_at)
    )
    and merged_by not in (select excused.correlation_id from excused)

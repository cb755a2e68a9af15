{# An ended run has exactly one job.started and one effective end, in that order. Orphaned
   ends do not count beside a real one, which supersedes them. Runs in flight are excused. What
   completed an ingestion has the event of it. #}
{% macro lifecycle_violations(period) -%}
    select
        correlation_id,
        starts,
        real_ends
    from (
        select
            correlation_id,
            count(case when event_type = 'job.started' then 1 end) as starts,
            count(case when event_type in ('job.completed', 'job.failed') then 1 end) as ends,
            count(case
                when event_type = 'job.completed' then 1
                when event_type = 'job.failed'
                    and coalesce({{ json_text('payload', '$.error_type') }}, '') != 'Orphaned' then 1
            end) as real_ends,
            min(case when event_type = 'job.started' then created_at end) as started_at,
            max(case
                when event_type in ('job.completed', 'job.failed') then created_at
            end) as ended_at,
            -- of all jobs those that ingest say how long their MERGE took
            count(case
                when event_type = 'job.completed'
                    then {{ json_text('payload', '$.merge_seconds') }}
            end) as completed_ingestions,
            count(case when event_type = 'ingestion.completed' then 1 end) as ingestions
        from ({{ run_events(period, 'assert_job_lifecycle') }}) as events
        group by correlation_id
    ) as runs
    where
        ends > 0
        and (
            starts > 1
            -- another run has closed one that began before the period, whose start is not seen
            or (starts = 0 and real_ends > 0)
            or real_ends > 1
            or ended_at < started_at
            or completed_ingestions > ingestions
        )
{%- endmacro %}

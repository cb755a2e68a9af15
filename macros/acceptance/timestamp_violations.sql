{# Events of a run follow each other: started, then the ingestion, then the end (an end of
   another run's making may be early); no event lies a day ahead. #}
{% macro timestamp_violations(period) -%}
    select
        correlation_id,
        min(created_at) as first_event_at
    from ({{ run_events(period, 'assert_timestamps') }}) as events
    group by correlation_id
    having
        min(case when event_type like 'ingestion.%' then created_at end)
        < min(case when event_type = 'job.started' then created_at end)
        or max(case
            when event_type = 'job.completed' then created_at
            when event_type = 'job.failed'
                and coalesce({{ json_text('payload', '$.error_type') }}, '') != 'Orphaned'
                then created_at
        end) < max(case when event_type like 'ingestion.%' then created_at end)
        or max(created_at) > {{ days_ago(-1) }}
{%- endmacro %}

{# Runs without an end that have outlived their timeout and the grace: nobody has closed them. #}
{% macro unended_violations(period) -%}
    select
        correlation_id,
        min(created_at) as began_at
    from ({{ run_events(period, 'assert_runs_end') }}) as events
    group by correlation_id
    having
        count(case when event_type in ('job.completed', 'job.failed') then 1 end) = 0
        and {{ seconds_between('min(created_at)', timestamp_now()) }} > {{ var('constants').grace_seconds }} + coalesce(
            max(case
                when event_type = 'job.started'
                    then {{ json_float('payload', '$.timeout_seconds') }}
            end), 0
        )
{%- endmacro %}

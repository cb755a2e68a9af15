{# Never an event per object: no type outside the five, at most three rows a run. A closing
   as Orphaned is written by another run and not counted. #}
{% macro event_count_violations(period) -%}
    select
        correlation_id,
        count(*) as event_count
    from ({{ run_events(period, 'assert_no_per_object_events') }}) as events
    where
        event_type != 'job.failed'
        or coalesce({{ json_text('payload', '$.error_type') }}, '') != 'Orphaned'
    group by correlation_id
    having
        count(*) > 3
        or count(case
            when event_type not in (
                '{{ var('constants').event_types | join("', '") }}'
            ) then 1
        end) > 0
{%- endmacro %}

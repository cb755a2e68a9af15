{# One correlation_id a run, none shared: all its events name one source, one connection and
   one job, and it is never empty. #}
{% macro correlation_id_violations(period) -%}
    select
        correlation_id,
        count(*) as event_count
    from ({{ run_events(period, 'assert_correlation_ids') }}) as events
    group by correlation_id
    having
        correlation_id = ''
        or count(distinct source_system) > 1
        or count(distinct coalesce(connection_name, '')) > 1
        or count(distinct {{ json_text('payload', '$.job_name') }}) > 1
        or count(case when event_type = 'job.started' then 1 end) > 1
        or count(case when event_type like 'ingestion.%' then 1 end) > 1
{%- endmacro %}

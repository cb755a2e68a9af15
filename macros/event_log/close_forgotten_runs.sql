{# on-run-start of a plain dbt command: ends for the runs that will write none. Of dbt's own, which
   Ctrl-C leaves without one, when their timeout and the grace have passed; of any, when nobody
   looks for it any more (loaders/jobs/runs.py looks back 30 days). What their MERGE did is not known. #}
{% macro close_forgotten_runs() -%}
    {%- if is_own_job() -%}
        {%- set event_log = source('telemetry', 'event_log') -%}
        {%- set names = [] -%}
        {%- for name in ['job_name', 'package_name'] -%}
            {%- set value = json_as_text(json_query('payload', '$.' ~ name)) -%}
            {%- do names.append("'\"" ~ name ~ "\": ', coalesce(" ~ value ~ ", 'null')") -%}
        {%- endfor -%}
        {%- set unknown = {'duration_seconds': none, 'error_type': 'Orphaned', 'step': none, 'retryable': true} -%}
        {%- for count in var('constants').merge_actions + ['rescued'] -%}
            {%- do unknown.update({count: none}) -%}
        {%- endfor -%}
insert into {{ event_log }} (
    event_id,
    event_type,
    source_system,
    connection_name,
    object_type,
    correlation_id,
    created_at,
    status,
    error_message,
    payload
)
select
    {{ uuid() }},
    'job.failed',
    source_system,
    connection_name,
    'job_run',
    correlation_id,
    {{ timestamp_now() }},
    'failed',
    'the run ended without an end row; closed by a later run',
    {{ json_parse("concat('{', " ~ names | join(", ', ', ") ~ ", ', " ~ (unknown | tojson)[1:] ~ "')") }}
from {{ event_log }}
where
    event_type = 'job.started'
    and (
        created_at < {{ days_ago(30) }}
        or (
            source_system = 'dbt'
            and {{ seconds_between('created_at', timestamp_now()) }}
            > {{ var('constants').grace_seconds }} + {{ json_float('payload', '$.timeout_seconds') }}
        )
    )
    and correlation_id not in (
        select correlation_id
        from {{ event_log }}
        where event_type in ('job.completed', 'job.failed')
    )
    {%- endif -%}
{%- endmacro %}

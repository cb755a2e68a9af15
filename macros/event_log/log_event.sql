{# The INSERT of one event of a plain dbt command, as text. `payload` is a JSON expression. #}
{% macro log_event(event_type, payload, error_message=none) -%}
{%- set allowed = [] -%}
{%- for known in var('constants').event_types if known.startswith('job.') -%}
    {%- do allowed.append(known) -%}
{%- endfor -%}
{%- if event_type not in allowed -%}
    {{ exceptions.raise_compiler_error(
        "log_event: event_type must be one of " ~ allowed | join(', ') ~ ", got " ~ event_type
    ) }}
{%- endif -%}
insert into {{ source('telemetry', 'event_log') }} (
    event_id,
    event_type,
    source_system,
    object_type,
    correlation_id,
    trace_id,
    created_at,
    status,
    error_message,
    payload
)
select
    {{ uuid() }},
    {{ text_literal(event_type) }},
    'dbt',
    'job_run',
    {{ text_literal(correlation_id()) }},
    {{ text_literal(trace_id()) }},
    {{ timestamp_now() }},
    {{ text_literal('failed' if event_type == 'job.failed' else 'ok') }},
    {{ text_literal(error_message) }},
    {{ payload }}
{%- endmacro %}

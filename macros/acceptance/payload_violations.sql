{# Every event carries the telemetry fields of its type, and an object_type if it is a job's;
   failures say why, successes do not. #}
{% macro payload_violations(period) -%}
    {%- set required = {
        'job.started': ['job_name', 'package_name', 'parameters', 'timeout_seconds', 'host', 'pid'],
        'job.completed': ['job_name', 'package_name', 'duration_seconds', 'tests']
        + var('constants').merge_actions,
        'job.failed': [
            'job_name', 'package_name', 'duration_seconds', 'error_type', 'step', 'retryable',
        ],
        'ingestion.completed': [
            'records_extracted', 'records_landed', 'already_held', 'gone', 'dead_lettered',
            'bytes', 'api_calls', 'api_units', 'retries', 'throttled_seconds', 'chunks', 'mode',
            'has_more', 'date_filter', 'objects', 'duration_seconds',
        ],
        'ingestion.failed': ['duration_seconds', 'step'],
    } -%}
    select
        correlation_id,
        event_id,
        event_type
    from ({{ run_events(period, 'assert_event_payloads') }}) as events
    where
        status != case
            when event_type like '%.failed' then 'failed' else 'ok'
        end
        or (status = 'failed') != (error_message is not null)
        or (
            event_type = 'job.started'
            -- of a JSON null the text is null
            and substr({{ json_as_text(json_query('payload', '$.parameters')) }}, 1, 1) != '{'
        )
        {%- for event_type in var('constants').event_types %}
        or (
            event_type = '{{ event_type }}'
            and (
                coalesce(object_type, '')
                != '{{ 'job_run' if event_type.startswith('job.') else '' }}' or
                {%- for field in required[event_type] %}
                {{ json_query('payload', '$.' ~ field) }} is null{{ ' or' if not loop.last }}
                {%- endfor %}
            )
        )
        {%- endfor %}
{%- endmacro %}

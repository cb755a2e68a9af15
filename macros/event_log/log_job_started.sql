{# on-run-start: the job.started of a plain dbt command. #}
{% macro log_job_started() -%}
    {%- if is_own_job() -%}
        {%- set parameters = {} -%}
        {%- for name in ['select', 'exclude', 'resource_types', 'full_refresh'] -%}
            {%- set value = invocation_args_dict.get(name) -%}
            {%- if value -%}
                {%- do parameters.update({name: value if value is sameas true else value | list}) -%}
            {%- endif -%}
        {%- endfor -%}
        {{ log_event('job.started', json_literal({
            'job_name': job_name(),
            'package_name': project_name,
            'parameters': parameters,
            'timeout_seconds': var('timeout_seconds'),
            'host': none,
            'pid': none,
        })) }}
    {%- endif -%}
{%- endmacro %}

{# on-run-start: the job.started of a plain dbt command. #}
{% macro log_job_started() -%}
    {%- if is_own_job() -%}
        {%- set parameters = {} -%}
        {%- for name in ['select', 'exclude'] if invocation_args_dict.get(name) -%}
            {%- do parameters.update({name: recorded_selection(invocation_args_dict[name])}) -%}
        {%- endfor -%}
        {%- if invocation_args_dict.get('resource_types') -%}
            {%- do parameters.update({'resource_types': invocation_args_dict['resource_types'] | list}) -%}
        {%- endif -%}
        {%- if invocation_args_dict.get('full_refresh') -%}
            {%- do parameters.update({'full_refresh': true}) -%}
        {%- endif -%}
        {{ log_event('job.started', json_literal({
            'job_name': job_name(),
            'package_name': project_name,
            'parameters': parameters,
            'timeout_seconds': timeout_seconds(),
            'host': none,
            'pid': none,
        })) }}
    {%- endif -%}
{%- endmacro %}

{# Who looks for orphans counts with it; what else was given is not repeated. #}
{% macro timeout_seconds() -%}
    {%- set given = var('timeout_seconds') | string -%}
    {%- if not modules.re.fullmatch('[0-9]{1,9}', given) -%}
        {{ exceptions.raise_compiler_error('timeout_seconds: expected a number of seconds') }}
    {%- endif -%}
    {{ return(given | int) }}
{%- endmacro %}

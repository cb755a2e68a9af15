{# The id of the run: the wrapper's, through its environment (a changed --vars value would
   make dbt parse the whole project again), or one of this dbt command's own. #}
{% macro correlation_id() -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    {%- set given = env_var('LANDFALL_CORRELATION_ID', '') -%}
    {{ return(
        given
        or [job_name(), run_started_at.strftime('%Y%m%d%H%M%S'), invocation_id[:4]] | join('-')
    ) }}
{%- endmacro %}

{% macro job_name() -%}
    {{ return('dbt_' ~ flags.WHICH) }}
{%- endmacro %}

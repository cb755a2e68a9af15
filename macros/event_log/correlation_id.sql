{# The id of the run: the wrapper's, through its environment (a changed --vars value would
   make dbt parse the whole project again), or one of this dbt command's own. #}
{% macro correlation_id() -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    {{ return(env_var('LANDFALL_CORRELATION_ID', '') or own_correlation_id()) }}
{%- endmacro %}

{# Of a dbt command that is a job of its own; where a query's comment is made, nothing else is known. #}
{% macro own_correlation_id() -%}
    {{ return(
        [job_name(), run_started_at.strftime('%Y%m%d%H%M%S'), invocation_id[:4]] | join('-')
    ) }}
{%- endmacro %}

{% macro job_name() -%}
    {{ return('dbt_' ~ flags.WHICH) }}
{%- endmacro %}

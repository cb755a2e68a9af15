{# [source_system, connection_name] of the run that loaders/run.py hands over with its
   correlation_id; none for a job of no connection, such as a plain dbt command. #}
{% macro run_connection() -%}
    {%- set given = env_var('LANDFALL_CONNECTION', '') if execute else '' -%}
    {{ return(given.split(':') if given else none) }}
{%- endmacro %}

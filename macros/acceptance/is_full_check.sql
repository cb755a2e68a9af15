{# Whether the tests look at the whole store: in a plain dbt command, and in a run of loaders/run.py
   whose connection's are due (full_check_hours). Otherwise at what the run has touched. #}
{% macro is_full_check() -%}
    {{ return(not execute or env_var('LANDFALL_CHECKS', 'full') != 'touched') }}
{%- endmacro %}

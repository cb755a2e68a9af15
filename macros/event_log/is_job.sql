{# True while dbt runs something that changes the warehouse: not for test, compile, docs,
   freshness or --empty, whose hooks stay silent. #}
{% macro is_job() -%}
    {{ return(is_build() and not flags.EMPTY) }}
{%- endmacro %}

{% macro is_build() -%}
    {{ return(execute and flags.WHICH in ('build', 'run', 'seed', 'snapshot', 'retry')) }}
{%- endmacro %}

{# True when this dbt command is a job of its own; loaders/run.py owns the jobs it starts. #}
{% macro is_own_job() -%}
    {{ return(is_job() and not env_var('LANDFALL_CORRELATION_ID', '')) }}
{%- endmacro %}

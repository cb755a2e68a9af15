{# True while dbt runs something that changes the warehouse: not for test, compile, docs,
   freshness or --empty, whose hooks stay silent. #}
{% macro is_job() -%}
    {{ return(
        execute
        and flags.WHICH in ('build', 'run', 'seed', 'snapshot', 'retry')
        and not flags.EMPTY
    ) }}
{%- endmacro %}

{# True when this dbt command is a job of its own; loaders/run.py owns the jobs it starts. #}
{% macro is_own_job() -%}
    {{ return(is_job() and not env_var('LANDFALL_CORRELATION_ID', '')) }}
{%- endmacro %}

{# What loaders/run.py knows of the MERGE before it (loaders/transform/merge_scope.py): `months`,
   `types`, `inserts_only`, and the `refusal` that a MERGE fails with for which it does not hold; none
   where the MERGE is to look for itself, as in a plain dbt command. Such a MERGE takes what the run
   itself may have queued, and leaves what others have queued since to them. #}
{% macro merge_scope() -%}
    {{ return(fromjson(env_var('LANDFALL_MERGE', 'null')) if execute else none) }}
{%- endmacro %}

{# Predicate of the rows of raw_objects that this run's MERGE may have touched. #}
{% macro in_scope(objects) -%}
    {%- set scope = merge_scope() -%}
    {%- if scope -%}
    {{ is_of_run(objects) }}
    and {{ in_months(objects ~ '.object_created_at', scope.months) }}
    {%- else -%}
    1 = 1
    {%- endif -%}
{%- endmacro %}

{# Predicate of the rows of a relation that are of this run's connection and of a type that it has
   landed: constants, by which BigQuery leaves out the blocks of others. #}
{% macro is_of_run(objects) -%}
    {{ is_of_connection(run_connection(), objects) }}
    and {{ objects }}.object_type in (
        {%- for type in merge_scope().types or [none] %}
        {{ text_literal(type) }}{{ ',' if not loop.last }}
        {%- endfor %}
    )
{%- endmacro %}

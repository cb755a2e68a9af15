{# What loaders/run.py knows of the MERGE before it (loaders/transform/merge_scope.py): `months`,
   `inserts_only`, and the `refusal` that a MERGE fails with for which it does not hold; none where
   the MERGE is to look for itself, as in a plain dbt command. #}
{% macro merge_scope() -%}
    {{ return(fromjson(env_var('LANDFALL_MERGE', 'null')) if execute else none) }}
{%- endmacro %}

{# Predicate of the rows that this run's MERGE may have touched. #}
{% macro in_scope(time) -%}
    {%- set scope = merge_scope() -%}
    {{ in_months(time, scope.months) if scope else '1 = 1' }}
{%- endmacro %}

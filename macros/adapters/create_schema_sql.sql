{# One statement, as text: the hooks hand their SQL back instead of running it. #}
{% macro create_schema_sql(relation) -%}
    create schema if not exists {{ relation.without_identifier() }}
{%- endmacro %}

{# The object or array at a JSON path. json_query also takes null, which is no SQL NULL then. #}
{% macro json_container(json, path) -%}
    {{ return(adapter.dispatch('json_container', 'landfall')(json, path)) }}
{%- endmacro %}

{% macro duckdb__json_container(json, path) -%}
    case
        when json_type({{ json }}, '{{ path }}') in ('OBJECT', 'ARRAY')
            then {{ json_query(json, path) }}
    end
{%- endmacro %}

{% macro bigquery__json_container(json, path) -%}
    case
        when json_type({{ json_query(json, path) }}) in ('object', 'array')
            then {{ json_query(json, path) }}
    end
{%- endmacro %}

{# As JSON writes numbers: a cast also takes nan, or 1_000, and each warehouse others. #}
{% macro json_float(json, path) -%}
    {{ return(adapter.dispatch('json_float', 'landfall')(
        json, path, '^-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?$'
    )) }}
{%- endmacro %}

{% macro duckdb__json_float(json, path, pattern) -%}
    case
        when {{ text_matches(json_text(json, path), pattern) }}
            then try_cast({{ json_text(json, path) }} as double)
    end
{%- endmacro %}

{% macro bigquery__json_float(json, path, pattern) -%}
    case
        when {{ text_matches(json_text(json, path), pattern) }}
            then safe_cast({{ json_text(json, path) }} as float64)
    end
{%- endmacro %}

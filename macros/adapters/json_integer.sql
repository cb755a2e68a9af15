{# Digits only: of other numbers a cast takes 1.5 for 2, 0x10 for 16, and each warehouse others. #}
{% macro json_integer(json, path) -%}
    {{ return(adapter.dispatch('json_integer', 'landfall')(json, path)) }}
{%- endmacro %}

{% macro duckdb__json_integer(json, path) -%}
    case
        when {{ text_matches(json_text(json, path), '^-?[0-9]{1,19}$') }}
            then try_cast({{ json_text(json, path) }} as bigint)
    end
{%- endmacro %}

{% macro bigquery__json_integer(json, path) -%}
    case
        when {{ text_matches(json_text(json, path), '^-?[0-9]{1,19}$') }}
            then safe_cast({{ json_text(json, path) }} as int64)
    end
{%- endmacro %}

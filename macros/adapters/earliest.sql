{# An aggregate: the value of the row with the least created_at, of those that meet a condition. #}
{% macro earliest(value, condition) -%}
    {{ return(adapter.dispatch('earliest', 'landfall')(value, condition)) }}
{%- endmacro %}

{% macro duckdb__earliest(value, condition) -%}
    arg_min_null({{ value }}, created_at) filter (where {{ condition }})
{%- endmacro %}

{% macro bigquery__earliest(value, condition) -%}
    any_value({{ value }} having min if({{ condition }}, created_at, null))
{%- endmacro %}

{# A decimal with at most twelve places, exact; digits and a point only, as casts differ in
   what else they take for a number. #}
{% macro json_decimal(json, path) -%}
    {{ return(adapter.dispatch('json_decimal', 'landfall')(json, path)) }}
{%- endmacro %}

{# Eighteen digits before the point and room for three more behind: see minor_to_decimal. #}
{% macro duckdb__json_decimal(json, path) -%}
    case
        when {{ text_matches(json_text(json, path), '^-?[0-9]{1,18}([.][0-9]{1,12})?$') }}
            then try_cast({{ json_text(json, path) }} as decimal(30, 12))
    end
{%- endmacro %}

{% macro bigquery__json_decimal(json, path) -%}
    case
        when {{ text_matches(json_text(json, path), '^-?[0-9]{1,18}([.][0-9]{1,12})?$') }}
            then safe_cast({{ json_text(json, path) }} as bignumeric)
    end
{%- endmacro %}

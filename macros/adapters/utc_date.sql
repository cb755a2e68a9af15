{# The day of a time in UTC, whatever the session's time zone is. #}
{% macro utc_date(timestamp) -%}
    {{ return(adapter.dispatch('utc_date', 'landfall')(timestamp)) }}
{%- endmacro %}

{% macro duckdb__utc_date(timestamp) -%}
    cast({{ timestamp }} at time zone 'UTC' as date)
{%- endmacro %}

{% macro bigquery__utc_date(timestamp) -%}
    date({{ timestamp }})
{%- endmacro %}

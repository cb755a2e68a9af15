{# The data_type of a documented column, in the words of the warehouse. #}
{% macro column_type(data_type) -%}
    {{ return(adapter.dispatch('column_type', 'landfall')(data_type)) }}
{%- endmacro %}

{% macro duckdb__column_type(data_type) -%}
    {%- set types = {
        'string': 'varchar',
        'timestamp': 'timestamptz',
        'integer': 'bigint',
        'boolean': 'boolean',
        'json': 'json',
    } -%}
    {{ return(types[data_type]) }}
{%- endmacro %}

{% macro bigquery__column_type(data_type) -%}
    {%- set types = {
        'string': 'string',
        'timestamp': 'timestamp',
        'integer': 'int64',
        'boolean': 'bool',
        'json': 'json',
    } -%}
    {{ return(types[data_type]) }}
{%- endmacro %}

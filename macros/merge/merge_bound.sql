{# A predicate on the stored rows that a MERGE looks at, besides their key. #}
{% macro merge_bound() -%}
    {{ return(adapter.dispatch('merge_bound', 'landfall')()) }}
{%- endmacro %}

{# Leaves the batch's own keys of the table, so that they are what the join holds in memory. #}
{% macro duckdb__merge_bound() -%}
    and stored.idem_key in (select idem_key from {{ source('landing', 'landed_objects') }})
{%- endmacro %}

{% macro bigquery__merge_bound() -%}
    {{ return('') }}
{%- endmacro %}

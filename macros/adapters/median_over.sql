{# The median of a number in a window's partition, NULLs left out: the mean of the middle two. #}
{% macro median_over(number, partition_by) -%}
    {{ return(adapter.dispatch('median_over', 'landfall')(number, partition_by)) }}
{%- endmacro %}

{% macro duckdb__median_over(number, partition_by) -%}
    quantile_cont({{ number }}, 0.5) over (partition by {{ partition_by }})
{%- endmacro %}

{# An aggregate function for it does not exist; APPROX_QUANTILES takes one of the middle two. #}
{% macro bigquery__median_over(number, partition_by) -%}
    percentile_cont({{ number }}, 0.5) over (partition by {{ partition_by }})
{%- endmacro %}

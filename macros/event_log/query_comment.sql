{# The comment on every statement that dbt sends; on BigQuery also the labels of its job, so
   that INFORMATION_SCHEMA.JOBS tells what a run cost. A label holds 63 characters: of a longer
   id the end is kept, which is what tells runs apart. #}
{% macro query_comment(node) -%}
    {%- set run = env_var('LANDFALL_CORRELATION_ID', '') or own_correlation_id() -%}
    {%- set labels = {
        'application': 'landfall',
        'job_name': run.rsplit('-', 2)[0][-63:],
        'correlation_id': run[-63:],
    } -%}
    {%- if node is not none -%}
        {%- do labels.update({'node': node.name[-63:]}) -%}
    {%- endif -%}
    {{ return(labels | tojson) }}
{%- endmacro %}

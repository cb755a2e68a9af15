{# Post-hook of a view: it says itself which definition it has, so that nobody has to believe a
   machine about it. Whatever replaces the view, `--empty` too, leaves no mark, or one that does
   not fit. run.py hands its project's fingerprint over; a plain dbt command has none. #}
{% macro mark_view() -%}
    {%- if execute and not flags.EMPTY -%}
        {{ return(adapter.dispatch('mark_view', 'landfall')(env_var('LANDFALL_VIEWS', 'dbt'))) }}
    {%- endif -%}
{%- endmacro %}

{# CREATE OR REPLACE drops the comment. #}
{% macro duckdb__mark_view(mark) -%}
    {%- set comment = (model.description | trim) ~ ' [landfall ' ~ mark ~ ']' -%}
    comment on view {{ this }} is '{{ comment | replace("'", "''") }}'
{%- endmacro %}

{# A view can be edited in place there and keep its labels: this one says of which text it is. #}
{% macro bigquery__mark_view(mark) -%}
    {%- set text = adapter.get_bq_table(this).view_query -%}
    {%- set labels = dict(config.get('labels', {}), landfall=mark ~ '-' ~ local_md5(text)) -%}
    alter view {{ this }} set options (labels = [
        {%- for name, value in labels.items() -%}
        ({{ name | tojson }}, {{ value | tojson }}){{ ', ' if not loop.last }}
        {%- endfor -%}
    ])
{%- endmacro %}

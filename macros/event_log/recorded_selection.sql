{# Selection criteria as they were typed, the first of them: a payload has 16 KB. #}
{% macro recorded_selection(criteria) -%}
    {%- set recorded = [] -%}
    {%- set room = namespace(left=6000) -%}
    {%- for criterion in criteria -%}
        {%- set room.left = room.left - tojson(criterion) | length -%}
        {%- if room.left < 0 -%}{%- break -%}{%- endif -%}
        {%- do recorded.append(criterion) -%}
    {%- endfor -%}
    {%- set more = criteria | length - recorded | length -%}
    {{ return(recorded + (['… ' ~ more ~ ' more'] if more > 0 else [])) }}
{%- endmacro %}

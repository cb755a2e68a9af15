{# One line that names what failed. Warehouse errors quote the values they choke on, so
   whatever stands in quotes, or after "Input:" or "value:", stays out of the log. #}
{% macro failed_nodes_message(failures) -%}
    {%- set first = failures[0] -%}
    {%- set lines = (first.message or first.status | string).strip().split('\n') -%}
    {%- set said = lines | map('trim') | join(' ') -%}
    {%- set said = modules.re.sub('\\s+', ' ', said) -%}
    {%- set said = modules.re.sub('(?i)\\binput:.*', '', said) -%}
    {%- set said = modules.re.sub('(?i)(\\bbad \\w+ value:) .*', '\\1 ...', said) -%}
    {%- set said = modules.re.sub('"[^"]*"|\'[^\']*\'', "'...'", said) -%}
    {{ return(
        (failures | length) ~ ' dbt node(s) failed, first ' ~ first.node.name ~ ': ' ~ said[:500]
    ) }}
{%- endmacro %}

{# The trace id of TRACEPARENT (W3C Trace Context, traceparent header), or none: anything may be
   in an environment. #}
{% macro trace_id() -%}
    {%- set parent = modules.re.fullmatch(
        '[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}', env_var('TRACEPARENT', '')
    ) -%}
    {{ return(parent.group(1) if parent else none) }}
{%- endmacro %}

{# The trace id of TRACEPARENT (W3C Trace Context, traceparent header), or none: anything may be
   in an environment. #}
{% macro trace_id() -%}
    {%- set parent = modules.re.fullmatch(
        var('constants').traceparent, env_var('TRACEPARENT', '')
    ) -%}
    {{ return(parent.group(1) if parent else none) }}
{%- endmacro %}

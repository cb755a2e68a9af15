{# A JSON expression: `telemetry` and what this run's MERGE did, counted where it is written. #}
{% macro json_with_merge_counts(telemetry) -%}
    {%- set actions = ['inserted', 'updated', 'unchanged', 'deleted', 'undeleted', 'stale'] -%}
    {%- set text = telemetry | tojson -%}
    {%- set parts = [adapter.dispatch('raw_text_literal', 'landfall')(text[:-1])] -%}
    {%- for action in actions -%}
        {%- do parts.append("', \"" ~ action ~ "\": '") -%}
        {%- do parts.append('cast(' ~ action ~ ' as ' ~ column_type('string') ~ ')') -%}
    {%- endfor -%}
    {%- do parts.append("'}'") -%}
    (
        select {{ json_parse('concat(' ~ parts | join(', ') ~ ')') }}
        from (
            select
                {%- for action in actions %}
                count(case when last_action = '{{ action }}' then 1 end) as {{ action }},
                {%- endfor %}
            from {{ raw_objects_relation() }}
            where merged_by = {{ text_literal(correlation_id()) }}
        ) as merged
    )
{%- endmacro %}

{# A JSON expression: `telemetry` and what this run's MERGE did, counted where it is written; as
   loaders/transform/merge_counts.py, of a job of no connection. #}
{% macro json_with_merge_counts(telemetry) -%}
    {%- set run = text_literal(correlation_id()) -%}
    {%- set actions = var('constants').merge_actions -%}
    {%- set text = telemetry | tojson -%}
    {%- set parts = [adapter.dispatch('raw_text_literal', 'landfall')(text[:-1])] -%}
    {%- for action in actions -%}
        {%- do parts.append("', \"" ~ action ~ "\": '") -%}
        {%- do parts.append('cast(' ~ action ~ ' as ' ~ column_type('string') ~ ')') -%}
    {%- endfor -%}
    {%- do parts.append("', \"rescued\": {}}'") -%}
    (
        select {{ json_parse('concat(' ~ parts | join(', ') ~ ')') }}
        from (
            select
                {%- for action in actions %}
                count(case when action = '{{ action }}' then 1 end) as {{ action }},
                {%- endfor %}
            from (
                select last_action as action
                from {{ raw_objects_relation() }}
                where merged_by = {{ run }} and last_action != 'inserted'
                union all
                select 'inserted'
                from {{ raw_objects_relation() }}
                where inserted_by = {{ run }}
                union all
                select 'inserted'
                from {{ source('erasure', 'erasures') }}
                where inserted_by = {{ run }}
            ) as touched
        ) as merged
    )
{%- endmacro %}

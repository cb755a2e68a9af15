{# The first objects and runs that the rows of a failed acceptance test name, by their keys; as
   _named_violations of loaders/transform/dbt_build.py. #}
{% macro named_violations(failure) -%}
    {%- set said = [] -%}
    {%- set path = (failure.node.original_file_path or '') | string -%}
    {%- if failure.status | string == 'fail' and path.startswith('tests/acceptance') -%}
        {%- set rows = run_query(
            'select * from (\n' ~ failure.node.compiled_code ~ '\n) as violations limit 3'
        ) -%}
        {%- for name in ['idem_key', 'correlation_id'] if name in rows.column_names -%}
            {%- set found = rows.columns[name].values() | select('string') | unique | list -%}
            {%- if found -%}{%- do said.append('; of ' ~ found | join(', ')) -%}{%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ return(said | join) }}
{%- endmacro %}

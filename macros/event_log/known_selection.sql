{# Selection criteria as far as they are made of the project's names and dbt's words, '…' for
   others: what is typed may be a key. At most 50, and of 100 characters: a payload has 16 KB. #}
{% macro known_selection(criteria) -%}
    {%- set names = selectable_names() -%}
    {%- set known = [] -%}
    {%- for criterion in criteria -%}
        {%- set spoken = modules.re.fullmatch('[A-Za-z0-9_+@:.,*/ -]{1,100}', criterion) -%}
        {#- how many generations: 2+model+1 -#}
        {%- set named = modules.re.sub('\\b[0-9]{1,4}\\+|\\+[0-9]{1,4}\\b', '+', criterion) -%}
        {%- set strange = [] -%}
        {%- for word in modules.re.findall('\\w+', named) if spoken and word not in names -%}
            {%- do strange.append(word) -%}
        {%- endfor -%}
        {%- do known.append(criterion if spoken and not strange else '…') -%}
    {%- endfor -%}
    {%- set known = known | unique(case_sensitive=true) | list -%}
    {%- set more = known | length - 50 -%}
    {{ return(known[:50] + (['… ' ~ more ~ ' more'] if more > 0 else [])) }}
{%- endmacro %}

{# One text that holds every word that may be selected by. #}
{% macro selectable_names() -%}
    {%- set names = [
        'access config exposure file fqn function group metric package path resource_type result',
        'saved_query selector semantic_model source source_status state tag test_name test_type',
        'unit_test version materialized data singular generic unit new old modified unmodified',
        'error fail fresher pass skipped success warn',
    ] -%}
    {%- for nodes in [graph.nodes, graph.sources, graph.exposures] -%}
        {%- for node in nodes.values() -%}
            {%- do names.extend([node.unique_id, node.original_file_path] + node.tags) -%}
            {%- do names.append(node.config.materialized | string) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(names | join(' ')) }}
{%- endmacro %}

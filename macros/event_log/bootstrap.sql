{# on-run-start of a plain dbt command: every table there, before any node is selected.
   run.py makes them by itself: loaders/transform/bootstrap.py, which a test holds equal. #}
{% macro bootstrap() -%}
    {%- if is_build() and flags.EMPTY -%}{%- do refuse_empty() -%}{%- endif -%}
    {%- if is_own_job() or (is_build() and flags.EMPTY) -%}
        {%- do remember_raw_objects() -%}
        {{ bootstrap_sql() }}
    {%- endif -%}
{%- endmacro %}

{# `--empty` is for a warehouse of which nobody reads anything yet: it makes views over nothing. #}
{% macro refuse_empty() -%}
    {%- set event_log = source('telemetry', 'event_log') -%}
    {%- if column_names(event_log) -%}
        {%- set runs = run_query(
            'select 1 as one from ' ~ event_log.render() ~ ' where correlation_id != '
            ~ text_literal(correlation_id()) ~ ' limit 1'
        ) -%}
        {%- if runs.rows -%}
            {{ exceptions.raise_compiler_error(
                '--empty: ' ~ event_log.render() ~ ' holds runs, and its views would show nothing;'
                ~ ' expected a warehouse without runs, such as one made for CI: choose another'
                ~ ' --target, or leave --empty out'
            ) }}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}

{# dbt listed the relations before its hooks ran. Unaware of the new table it would build
   raw_objects by CTAS, which loses what another first run merges meanwhile. #}
{% macro remember_raw_objects() -%}
    {%- set relation = raw_objects_relation() -%}
    {%- if load_cached_relation(relation) is none -%}
        {%- do adapter.cache_added(relation) -%}
    {%- endif -%}
{%- endmacro %}

{# raw_objects for a hook, in which ref() would have to stand outside of any condition. #}
{% macro raw_objects_relation() -%}
    {%- set node = graph.nodes['model.landfall.raw_objects'] -%}
    {{ return(api.Relation.create(
        database=node.database, schema=node.schema, identifier=node.alias, type='table'
    )) }}
{%- endmacro %}

{# CREATE for what is missing and ADD COLUMN for what came later: forward only, safe to
   repeat, safe for two first runs at once. One definition: the documented columns. #}
{% macro bootstrap_sql() -%}
    {%- set nodes = [graph.nodes['model.landfall.raw_objects']] -%}
    {%- for node in graph.sources.values() if node.package_name == 'landfall' -%}
        {%- do nodes.append(node) -%}
    {%- endfor -%}
    {%- set statements = [] -%}
    {%- for node in nodes -%}
        {%- set relation = api.Relation.create(
            database=node.database, schema=node.schema, identifier=node.identifier or node.alias
        ) -%}
        {#- even IF NOT EXISTS takes BigQuery's permission to make datasets -#}
        {%- if not adapter.check_schema_exists(relation.database, relation.schema) -%}
            {%- do statements.append(create_schema_sql(relation)) -%}
        {%- endif -%}
        {%- do statements.append(create_table_sql(relation, node)) -%}
        {%- set present = column_names(relation) -%}
        {%- if node.name == 'warehouse_format' -%}{%- do check_format(relation, present, node) -%}{%- endif -%}
        {%- for column in node.columns.values() if present and column.name not in present -%}
            {%- do statements.append(add_column_sql(relation, column)) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(statements | unique | join(';\n')) }}
{%- endmacro %}

{# As check_format of loaders/transform/bootstrap.py. #}
{% macro check_format(relation, present, node) -%}
    {%- set unknown = present | reject('in', node.columns) | list -%}
    {%- if unknown -%}
        {{ exceptions.raise_compiler_error(
            relation.database ~ '.' ~ relation.schema ~ ': a later release writes this warehouse ('
            ~ relation.identifier ~ ' ' ~ unknown | sort | join(', ') ~ '), this one knows '
            ~ node.columns | join(', ') ~ '; update this checkout'
        ) }}
    {%- endif -%}
{%- endmacro %}

{% macro create_table_sql(relation, node) -%}
create table if not exists {{ relation }} (
    {%- for column in node.columns.values() %}
    {{ column_sql(column) }}
    {{- ' not null' if is_required(column) }}
    {{- ' ' ~ column_options(column) }}{{ ',' if not loop.last }}
    {%- endfor %}
)
{{ table_layout((node.config.meta or {}).get('layout')) }}
{%- endmacro %}

{# A column added to rows that are already there cannot be NOT NULL. #}
{% macro add_column_sql(relation, column) -%}
alter table {{ relation }} add column if not exists {{ column_sql(column) }}
{%- endmacro %}

{% macro column_sql(column) -%}
    {{ return(column.name ~ ' ' ~ column_type(column.data_type)) }}
{%- endmacro %}

{% macro is_required(column) -%}
    {{ return(column.constraints | selectattr('type', 'equalto', 'not_null') | list | length > 0) }}
{%- endmacro %}

{# Jinja's tojson filter emits ASCII without quotes or line breaks inside: nothing is left to escape. #}
{% macro json_literal(value) -%}
    {{ return(json_parse(adapter.dispatch('raw_text_literal', 'landfall')(value | tojson))) }}
{%- endmacro %}

{% macro text_literal(value) -%}
    {%- if value is none -%}
        {{ return('cast(null as ' ~ column_type('string') ~ ')') }}
    {%- endif -%}
    {#- BigQuery leaves partitions and blocks out by plain constants -#}
    {%- if modules.re.fullmatch('[0-9A-Za-z_.:-]+', value | string) -%}
        {{ return(adapter.dispatch('raw_text_literal', 'landfall')(value | string)) }}
    {%- endif -%}
    {{ return(json_text(json_literal({'text': value | string}), '$.text')) }}
{%- endmacro %}

{% macro duckdb__raw_text_literal(text) -%}
    {{ return("'" ~ text ~ "'") }}
{%- endmacro %}

{% macro bigquery__raw_text_literal(text) -%}
    {{ return("r'" ~ text ~ "'") }}
{%- endmacro %}

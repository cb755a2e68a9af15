{# The idem_key of the object that a part belongs to, from the part's; any other key as it
   is. From the key alone: whoever reads all of raw_objects reads no more columns for it. #}
{% macro owner_key(key) -%}
    {%- set literal = adapter.dispatch('raw_text_literal', 'landfall') -%}
    {%- set found = namespace(key=key) -%}
    {%- for source, owners in var('constants').part_owners.items() -%}
        {%- for part, owner in owners.items() -%}
            {%- set pattern = literal('(?s)^(' ~ source ~ ':[^:]+):' ~ part ~ ':([^:]+):.*$') -%}
            {%- set owned = literal('\\1:' ~ owner ~ ':\\2') -%}
            {%- set found.key = 'regexp_replace(' ~ [found.key, pattern, owned] | join(', ') ~ ')' -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(found.key) }}
{%- endmacro %}

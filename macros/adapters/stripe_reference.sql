{# The id of the object that a Stripe object refers to. Stripe sends the id as text, or the
   whole object when somebody asked for it to be expanded, or a stub of one that is deleted. #}
{% macro stripe_reference(payload, path) -%}
    {{ return(adapter.dispatch('stripe_reference', 'landfall')(payload, path)) }}
{%- endmacro %}

{# json_extract_string writes a whole object as text. #}
{% macro duckdb__stripe_reference(payload, path) -%}
    case json_type({{ payload }}, '{{ path }}')
        when 'VARCHAR' then json_extract_string({{ payload }}, '{{ path }}')
        when 'OBJECT' then json_extract_string({{ payload }}, '{{ path }}.id')
    end
{%- endmacro %}

{# json_value is NULL for an object, and for a member of a text. #}
{% macro bigquery__stripe_reference(payload, path) -%}
    coalesce(
        json_value({{ payload }}, '{{ path }}'), json_value({{ payload }}, '{{ path }}.id')
    )
{%- endmacro %}

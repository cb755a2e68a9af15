{# The id of the object that a Stripe object refers to. Stripe sends the id as text, or the
   whole object when somebody asked for it to be expanded, or a stub of one that is deleted.
   Further paths are where older versions of the API have it: the first that has one counts. #}
{% macro stripe_reference(payload, path) -%}
    coalesce(
        {%- for each in [path] + (varargs | list) %}
        {{ json_text(payload, each) }}, {{ json_text(payload, each ~ '.id') }}
        {{- "," if not loop.last }}
        {%- endfor %}
    )
{%- endmacro %}

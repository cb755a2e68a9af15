{# The true or false at a JSON path. No cast: of texts each warehouse takes others for booleans. #}
{% macro json_boolean(json, path) -%}
    case {{ json_text(json, path) }} when 'true' then true when 'false' then false end
{%- endmacro %}

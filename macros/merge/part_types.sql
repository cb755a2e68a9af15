{# Object types whose ids are `owner:part`: source, type, the owner's type. As
   loaders.objects.idem_keys.OWNERS has them. #}
{% macro part_types() -%}
    {{ return([
        ('gmail', 'attachment', 'message'),
        ('stripe', 'invoice_line', 'invoice'),
    ]) }}
{%- endmacro %}

{#- The rows of the months that are run. A table with `write: batch` is made of these alone, so that
    it does not matter in which order months come. -#}
{% macro in_batches() -%}
    _batch in ('{{ var('batches') | join("', '") }}')
{%- endmacro %}

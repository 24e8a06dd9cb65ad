{#- A rule is broken by the months that are run where it has findings; these are what is counted. -#}
{% test dq_rule(model, rule) %}
{{ config(fail_calc = 'coalesce(sum(findings), 0)') }}
select _batch, facility_cd, findings
from {{ model }}
where rule = '{{ rule }}' and {{ in_batches() }}
{% endtest %}

{# One line of at most 500 characters: what failed, how, and where to read on. A warehouse's
   message may quote content and secrets anywhere, so nothing of it is copied. #}
{% macro failed_nodes_message(failures) -%}
    {%- set count = failures | length -%}
    {%- set begin = count ~ ' dbt node(s) failed: ' -%}
    {%- set found = failures | selectattr('status', 'equalto', 'fail') | first -%}
    {%- set shown -%}
        {%- if found %}; `dbt show --select {{ found.node.name | truncate(120, true, '…', 0) }}` lists its rows,
        {{- ' docs/faults.md says what to do' -}}{%- endif -%}
    {%- endset -%}
    {%- set end = shown ~ '; see ' ~ dbt_log() ~ ', invocation ' ~ invocation_id -%}
    {%- set room = 500 - (begin ~ ', ' ~ count ~ ' more' ~ end) | length -%}
    {%- set named = [] -%}
    {%- for failure in failures -%}
        {%- set name = failure.node.name | truncate(120, true, '…', 0) -%}
        {%- set text = name ~ ' (' ~ kind_of_failure(failure) ~ ')' -%}
        {%- set of_whom = name ~ ' (' ~ kind_of_failure(failure) ~ named_violations(failure) ~ ')' -%}
        {%- if (named + [of_whom]) | join(', ') | length <= room -%}
            {%- do named.append(of_whom) -%}
        {%- elif (named + [text]) | join(', ') | length <= room -%}
            {%- do named.append(text) -%}
        {%- else -%}
            {%- break -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if named | length < count -%}
        {%- do named.append((count - named | length) ~ ' more') -%}
    {%- endif -%}
    {{ return(begin ~ named | join(', ') ~ end) }}
{%- endmacro %}

{# What is surely no content: the rows that a test counted, or else one of the names below, or
   else dbt's status. dbt's own kind of error stands in a message's first line, what the
   warehouse calls it at the start of the second. #}
{% macro kind_of_failure(failure) -%}
    {%- set message = (failure.message or '') | string -%}
    {%- set counted = 'Got [0-9]{1,18} results?, configured to fail if [!<>=]{1,2} ?[0-9]{1,18}' -%}
    {%- if failure.node.config.fail_calc == 'count(*)' and modules.re.fullmatch(counted, message) -%}
        {{ return(message) }}
    {%- endif -%}
    {%- set kinds = [failure.status | string] -%}
    {%- for line in message.split('\n')[:2] -%}
        {%- for kind in error_kinds() if line.strip().startswith(kind) -%}
            {%- do kinds.append(kind) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(kinds | last) }}
{%- endmacro %}

{% macro error_kinds() -%}
    {{ return([
        'Breaking change to contract Error', 'Compilation Error', 'Database Error',
        'FailFast Error', 'Internal Error', 'Parsing Error', 'Runtime Error',
        'Binder Error', 'Catalog Error', 'Connection Error', 'Constraint Error',
        'Conversion Error', 'Dependency Error', 'Divide by Zero Error', 'FATAL Error',
        'HTTP Error', 'INTERRUPT Error', 'IO Error', 'INTERNAL Error',
        'Invalid Configuration Error', 'Invalid Error', 'Invalid Input Error',
        'Invalid type Error', 'Mismatch Type Error', 'Missing Extension Error',
        'Not implemented Error', 'Out of Memory Error', 'Out of Range Error', 'Parser Error',
        'Permission Error', 'Sequence Error', 'Serialization Error', 'Syntax Error',
        'TransactionContext Error',
        'Access Denied', 'Could not serialize access', 'Exceeded rate limits', 'Not found',
        'Query exceeded limit for bytes billed', 'Quota exceeded', 'Resources exceeded',
        'Syntax error', 'Unrecognized name',
    ]) }}
{%- endmacro %}

{# Where dbt keeps what the warehouse said; a path that is long or strange is not repeated. #}
{% macro dbt_log() -%}
    {%- if invocation_args_dict.get('log_level_file') == 'none' -%}
        {{ return("dbt's output") }}
    {%- endif -%}
    {%- set path = invocation_args_dict.get('log_path', '') ~ '/dbt.log' -%}
    {%- set ordinary = modules.re.fullmatch('[\\w./:\\\\ -]{1,150}', path) -%}
    {{ return(path if ordinary else "dbt's log") }}
{%- endmacro %}

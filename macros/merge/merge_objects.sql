{# The one MERGE of a run. dbt's own has a single UPDATE clause: it would rewrite the payload
   of unchanged rows and lose it for deleted ones. What is decided and what is written share
   one snapshot, so a concurrent MERGE cannot come between them. #}
{% macro merge_objects(target, states) -%}
    {#- under `--empty` a relation is a sub-query, into which nothing can be merged -#}
    {{ return(adapter.dispatch('merge_objects', 'landfall')(target.render(), states)) }}
{%- endmacro %}

{# DuckDB keeps what a MERGE inserts or updates in memory until it commits: 100,000 mails do
   not fit in 512 MB. What an INSERT writes it streams to disk. So payloads are written by an
   INSERT, never sorted, joined or updated: here one transaction (dbt's) is the one snapshot,
   and the MERGE takes out the rows whose payload the INSERT then writes anew.

   But a commit holds the payloads of 2,048 rows, as DuckDB writes so many at once. Where those are
   too large, the keys are merged in slices, each a transaction and a snapshot of its own: a process
   that dies between two of them leaves merged states in the queue, which change nothing when they
   are merged again. #}
{% macro duckdb__merge_objects(target, states) -%}
    {%- set slices = payload_slices() -%}
    {%- do set_vacuum(slices == 1) -%}
    {%- if slices == 1 -%}
        {{ return(merge_of_slice(target, states)) }}
    {%- endif -%}
    {#- a commit that is a checkpoint, too, ends the row group, and the next slice begins one; dbt's
        own transaction, which began before, cannot be one -#}
    {%- do run_query("set global checkpoint_threshold = '1KB'") -%}
    {%- for slice in range(slices) %}
commit;
begin transaction;
{{ merge_of_slice(target, states, slice) }};
    {%- endfor %}
reset global checkpoint_threshold
{%- endmacro %}

{# The MERGE of all queued keys, or of those of a slice. #}
{% macro merge_of_slice(target, states, slice=none) -%}
    {%- set taken = 'true' if slice is none
        else 'idem_key in (select idem_key from merge_slices where slice = ' ~ slice ~ ')' -%}
    {%- set of = object_columns() -%}
    {%- set columns = of.key + of.landed + of.history + of.current + ['inserted_by'] -%}
    {%- set history -%}
        first_seen = seen.first_seen,
        last_seen = seen.last_seen,
        object_created_at = seen.object_created_at,
        merged_by = {{ text_literal(correlation_id()) }},
        last_action = seen.action
    {%- endset -%}
    {%- set landed = source('landing', 'landed_objects').render() -%}
create or replace temporary table merge_decisions as
-- of states landed twice one row is taken
with contents as (
    select
        idem_key,
        observed_at,
        max_by(rowid, payload_hash) as content_row
    from {{ landed }}
    where
        not is_deleted
        and {{ is_to_merge() | indent }}
        and {{ taken }}
    group by idem_key, observed_at
),

seen as (
    select
        objects.* exclude (payload),
        contents.content_row
    from (select * from {{ states }} where {{ taken }}) as objects
    left join contents
        on objects.idem_key = contents.idem_key
        and objects.content_observed_at = contents.observed_at
),

-- the key alone is read of every stored row, the rest of the rows found
stored_rows as (
    select
        seen.idem_key,
        stored.rowid as stored_row
    from seen
    inner join {{ target }} as stored on seen.idem_key = stored.idem_key
),

decided as (
    select
        seen.* exclude (first_seen, last_seen, object_created_at),
        least(stored.first_seen, seen.first_seen) as first_seen,
        greatest(stored.last_seen, seen.last_seen) as last_seen,
        coalesce(stored.object_created_at, seen.object_created_at) as object_created_at,
        case
            when stored_rows.stored_row is null then {{ text_literal(correlation_id()) }}
            else stored.inserted_by
        end as inserted_by,
        stored.last_seen as stored_last_seen,
        {{ is_held('seen', 'stored') }} as is_held,
        stored_rows.stored_row,
        case
            when stored_rows.stored_row is null then 'inserted'
            else {{ merge_action(
                'seen.last_seen', '(seen.deleted_at is not null)', 'seen.payload_hash', 'stored'
            ) }}
        end as action
    from seen
    left join stored_rows on seen.idem_key = stored_rows.idem_key
    left join {{ target }} as stored on stored_rows.stored_row = stored.rowid
)

select
    *,
    action in ('inserted', 'updated', 'undeleted')
    -- deleted, and the queue also held newer content than the stored one
    or (action = 'deleted' and coalesce(content_observed_at > stored_last_seen, false))
        as brings_payload
from decided;

merge into {{ target }} as stored
using (
    select * from merge_decisions
    where stored_row is not null and not (action = 'stale' and is_held)
) as seen
on stored.rowid = seen.stored_row
when matched and seen.brings_payload
    then delete
when matched and seen.action = 'deleted'
    then update set
        {%- for column in of.landed + of.current %}
        {{ column }} = seen.{{ column }},
        {%- endfor %}
        {{ history }}
when matched
    then update set {{ history }};

-- DuckDB reads, joins and parses 2,048 payloads at once, and a few of 25 MB fill its memory. So
-- each load package, whose bytes have a bound, is a scan of its own. No two scans overlap,
-- however the packages lie; more than 256 would take seconds to plan.
set variable payload_scans = (
    with packages as (
        select min(rowid) as first_row
        from {{ landed }}
        where rowid in (select content_row from merge_decisions where brings_payload)
        group by _dlt_load_id
    ),

    parts as (
        select
            first_row,
            ntile(256) over (order by first_row) as part
        from packages
    ),

    scans as (
        select
            min(first_row) as first_row,
            lead(min(first_row)) over (order by part) as next_row
        from parts
        group by part
    )

    select
        concat(
            $$select rowid as content_row, payload from {{ landed }} where false$$,
            string_agg(concat(
                $$ union all select rowid, payload from {{ landed }} where rowid >= $$, first_row,
                ' and rowid < ' || next_row
            ), '' order by first_row)
        )
    from scans
);

-- the payloads are what is streamed, not what is kept, however few they are
set variable optimizers_before = current_setting('disabled_optimizers');
set disabled_optimizers = 'build_side_probe_side';
-- two threads would each fill a row group of their own, and copy it into one at the end
set variable threads_before = current_setting('threads');
set threads = 1;

insert into {{ target }} ({{ columns | join(', ') }}, payload, merged_by, last_action)
select
    {%- for column in columns %}
    seen.{{ column }},
    {%- endfor %}
    {{ json_parse('landed.payload') }} as payload,
    {{ text_literal(correlation_id()) }} as merged_by,
    seen.action as last_action
from query(getvariable('payload_scans')) as landed
right join (select * from merge_decisions where brings_payload) as seen
    on landed.content_row = seen.content_row;

set threads = getvariable('threads_before');
set disabled_optimizers = getvariable('optimizers_before');
drop table merge_decisions
{%- endmacro %}

{# BigQuery bills an UPDATE for every column of each partition it may touch, and a payload is
   nearly all of a row: so the MERGE names the months it touches as constants. A row whose
   stored month is not among them, since it moved after the months were looked up, would look
   new: it is left out and stays queued. Where they are the run's own word (merge_scope), it makes
   the MERGE fail; of objects that are all new by that word, so does one that is stored. #}
{% macro bigquery__merge_objects(target, states) -%}
    {%- set scope = merge_scope() -%}
    {%- set months = merge_months(target) -%}
    {%- set is_in_months = in_months(
        'coalesce(located.object_created_at, objects.object_created_at)', months
    ) -%}
    {%- set run = text_literal(correlation_id()) -%}
    {%- set action = merge_action(
        'seen.last_seen', '(seen.deleted_at is not null)', 'seen.payload_hash', 'stored'
    ) -%}
    {%- set history -%}
        first_seen = least(stored.first_seen, seen.first_seen),
        last_seen = greatest(stored.last_seen, seen.last_seen),
        object_created_at = coalesce(stored.object_created_at, seen.object_created_at),
        merged_by = {{ run }}
    {%- endset -%}
    {%- set of = object_columns() -%}
    {%- set state -%}
        {%- for column in of.landed + of.current %}
        {{ column }} = seen.{{ column }}{{ ',' if not loop.last }}
        {%- endfor %}
    {%- endset -%}
    {%- set inserted = of.key + of.content + of.landed + of.history + of.current -%}
merge into {{ target }} as stored
using (
    select objects.*
    from {{ states }} as objects
    {% if scope -%}
    -- the parts of the key are what the rows lie together by, and shorter than the key
    left join (
        select
            object_type,
            external_id,
            object_created_at
        from {{ target }} as held
        where {{ is_of_run('held') | indent(8) }}
    ) as located
        on objects.object_type = located.object_type
        and objects.external_id = located.external_id
    {%- else -%}
    left join {{ target }} as located on objects.idem_key = located.idem_key
    {%- endif %}
    where {% if scope -%}
        {{ is_of_run('objects') | indent(8) }}
        and if(
            {{ is_in_months }}
            {%- if scope.inserts_only %} and located.external_id is null{% endif %},
            true,
            error({{ text_literal(scope.refusal) }})
        )
    {%- else -%}
        {{ is_in_months }}
    {%- endif %}
) as seen
on stored.idem_key = seen.idem_key
and {{ in_months('stored.object_created_at', months) }}
{%- if scope %}
and {{ is_of_run('stored') }}
{%- endif %}
{% if not (scope and scope.inserts_only) -%}
when matched and {{ action }} in ('updated', 'undeleted')
    then update set
        payload = seen.payload,
        {{ state }},
        {{ history }},
        last_action = case when stored.deleted_at is null then 'updated' else 'undeleted' end
-- deleted, and the queue also held newer content than the stored one
when matched and {{ action }} = 'deleted' and seen.content_observed_at > stored.last_seen
    then update set
        payload = seen.payload,
        {{ state }},
        {{ history }},
        last_action = 'deleted'
when matched and {{ action }} = 'deleted'
    then update set
        {{ state }},
        {{ history }},
        last_action = 'deleted'
when matched and not ({{ action }} = 'stale' and {{ is_held('seen', 'stored') }})
    then update set
        {{ history }},
        last_action = {{ action }}
{% endif -%}
when not matched
    then insert ({{ inserted | join(', ') }}, merged_by, inserted_by, last_action)
    values (
        {%- for column in inserted %}seen.{{ column }}, {% endfor -%}
        {{ run }}, {{ run }}, 'inserted'
    )
{%- endmacro %}

"""Bytes that BigQuery bills for a statement, from what it reads and how large that is.

By Google's documentation ("Estimate and control costs"; "Data manipulation language: on-demand
query size calculation"): a query is billed for the whole of each column that it refers to, in the
partitions that a comparison of the partitioning column with constants leaves; an UPDATE, DELETE or
MERGE that changes rows for all columns of the partitions of its target that it scans, on top of
that; each table for 10 MB at the least; DDL and loads for nothing. A column that is read twice is
billed once, and one that a sub-query or view offers and nobody reads is not. That is the promise.
The hope is what may be left of it at best: rows that constants on the leading clustering columns
name, and no column of what is changed billed twice.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlglot import exp, parse, tokenize
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope
from sqlglot.tokenizer_core import TokenType

MB = 2**20
"""Google's megabyte, on bills."""
LEAST = 10 * MB
"""Of each table that a query refers to, and of a query that refers to none (BigQuery pricing)."""
_DIALECT = "bigquery"
_FREE = (
    *(exp.Drop, exp.Alter, exp.TruncateTable, exp.Declare, exp.Set),
    *(exp.Transaction, exp.Commit, exp.Rollback),
)
_UNREADABLE = (
    *(SqlglotError, LookupError, ValueError, TypeError, AttributeError),
    *(AssertionError, RecursionError),
)


class Unanalysable(ValueError):
    """Nothing here knows what the statement reads."""


@dataclasses.dataclass(frozen=True)
class Partition:
    """Rows of a table between two moments, seconds since 1970; None: of unknown time."""

    rows: float
    begins: float | None = None
    ends: float | None = None


def _all(column: str, value: str) -> float:
    return 1.0


@dataclasses.dataclass(frozen=True)
class Table:
    """How much a table holds, and where."""

    widths: Mapping[str, float]
    """Average bytes of each column's values."""
    partitions: Sequence[Partition]
    partitioned_by: str = ""
    clustered_by: tuple[str, ...] = ()
    share_of_value: Callable[[str, str], float] = _all
    """The share of the rows that have this value in this clustering column."""
    share_of_range: Callable[[str, str], float] = _all
    """The share of those whose value is beyond this one, or begins with it."""


@dataclasses.dataclass(frozen=True)
class Scan:
    """One mention of a table in a statement."""

    table: str
    columns: frozenset[str]
    filters: tuple[exp.Expr, ...] = ()
    """Conditions that rows must meet, of columns of this table alone."""
    is_whole: bool = False
    """Whether the statement changes rows here, which costs all columns once more."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one statement reads; with a doubt, of what it names everything."""

    scans: tuple[Scan, ...]
    is_free: bool = False
    doubt: str = ""


@dataclasses.dataclass(frozen=True)
class Bill:
    """Bytes, minimum included, by the promise and by the hope."""

    promise: float = 0.0
    hope: float = 0.0

    def __add__(self, other: Bill) -> Bill:
        return Bill(self.promise + other.promise, self.hope + other.hope)


class Reader:
    """Finds out what statements read, in a warehouse of these tables and views."""

    def __init__(self, columns: Mapping[str, Iterable[str]], views: Mapping[str, str]) -> None:
        """Take the columns of each table, `dataset.table`, and the SQL of each view."""
        self._columns: dict[str, frozenset[str]] = {}
        self._views = dict(views)
        self._schema: dict[str, Any] = {}
        for name, found in columns.items():
            self._add(name, found)

    def read(self, text: str, parameters: Sequence[tuple[str, str | None]] = ()) -> list[Reading]:
        """What each statement of a script reads; parameters are types and values."""
        try:
            statements = parse(bound(text, parameters), dialect=_DIALECT)
        except _UNREADABLE as error:
            return [self._everything(text, _first_line(error))]
        return [self._read_one(each) for each in statements if each is not None]

    def _read_one(self, statement: exp.Expr) -> Reading:
        try:
            return self._scans(statement)
        except _UNREADABLE as error:
            return self._everything(statement.sql(_DIALECT), _first_line(error))

    def _scans(self, statement: exp.Expr) -> Reading:
        statement = statement.copy()
        if isinstance(statement, exp.Create):
            query = statement.expression
            if statement.kind != "TABLE" or query is None:
                return Reading((), is_free=True)
            return self._of_creation(statement, query)
        if isinstance(statement, _FREE):
            queries = [each for each in statement.find_all(exp.Query) if not each.parent_select]
            scans = [scan for each in queries for scan in self._of_query(each)]
            return Reading(tuple(scans), is_free=not queries)
        if isinstance(statement, exp.Query):
            return Reading(self._of_query(statement))
        if isinstance(statement, exp.Insert):
            query = statement.expression
            if isinstance(query, exp.Values | exp.Tuple):
                query = exp.select(query.copy())
            return Reading(self._of_query(query))
        if isinstance(statement, exp.Merge):
            return Reading(self._of_merge(statement))
        if isinstance(statement, exp.Update | exp.Delete):
            return Reading(self._of_change(statement))
        raise Unanalysable(f"{type(statement).__name__}: not a kind of statement that is known")

    def _of_creation(self, creation: exp.Create, query: exp.Expr) -> Reading:
        """Of CREATE TABLE AS. What it makes of constants alone is a table that is known from then
        on, and small; how large anything else is, nobody can tell before."""
        scans = self._of_query(query)
        made = creation.find(exp.Table)
        if not scans and made is not None and isinstance(query.unnest(), exp.Query):
            self._add(_path(made), self._outputs(query))
        return Reading(scans)

    def _outputs(self, query: exp.Expr) -> list[str]:
        unnested = query.unnest()
        assert isinstance(unnested, exp.Query)
        qualified = qualify(unnested.copy(), schema=self._schema, dialect=_DIALECT)
        assert isinstance(qualified, exp.Query)
        return list(qualified.named_selects)

    def _add(self, name: str, columns: Iterable[str]) -> None:
        dataset, table = name.split(".")
        self._columns[name] = frozenset(columns)
        self._schema.setdefault(dataset, {})[table] = dict.fromkeys(self._columns[name], "STRING")

    def _of_merge(self, merge: exp.Merge) -> tuple[Scan, ...]:
        """As of the join that it is: all of the source's columns that it uses, and its target."""
        target, source = merge.this, merge.args["using"]
        whens = merge.args["whens"].expressions
        uses = [when.args["condition"] for when in whens if when.args.get("condition")]
        for when in whens:
            uses += _values_of(when.args.get("then"))
        changes = any(not isinstance(when.args.get("then"), exp.Insert) for when in whens)
        kept = any(isinstance(when.args.get("then"), exp.Insert) for when in whens)
        joined = (
            exp.select(*_named(uses))
            .from_(source)
            .join(target, on=merge.args["on"], join_type="left" if kept else "")
        )
        return self._of_query(joined, target if changes else None)

    def _of_change(self, change: exp.Update | exp.Delete) -> tuple[Scan, ...]:
        target, condition = change.this, change.args.get("where")
        query = exp.select(*_named(_values_of(change))).from_(target)
        for key in ("from_", "from"):
            if change.args.get(key):
                query = query.join(change.args[key].this, join_type="cross")
        if condition:
            query = query.where(condition.this)
        return self._of_query(query, target)

    def _of_query(self, query: exp.Expr, changed: exp.Expr | None = None) -> tuple[Scan, ...]:
        """Scans of a query; of the table that it changes, all columns where it is mentioned."""
        if all("INFORMATION_SCHEMA" in each.name for each in query.find_all(exp.Table)):
            return tuple(Scan(_path(each), frozenset()) for each in query.find_all(exp.Table))
        name = changed.alias_or_name if changed else ""
        query = self._with_views(query.unnest())
        if any(isinstance(each, exp.With) and each.recursive for each in query.find_all(exp.With)):
            raise Unanalysable("a query that refers to itself")
        qualified = qualify(
            query,
            schema=self._schema,
            dialect=_DIALECT,
            quote_identifiers=False,
            validate_qualify_columns=True,
        )
        scope = build_scope(qualified)
        if scope is None:
            raise Unanalysable("not a query")
        scans = list(_Walk(self._columns).scope(scope, None, (), name))
        if changed and not any(scan.is_whole for scan in scans):
            raise Unanalysable("what it changes is not a table")
        return tuple(scans)

    def _with_views(self, query: exp.Expr, depth: int = 0) -> exp.Expr:
        """The query with its views as sub-queries, and names without the project."""
        if depth > 20:
            raise Unanalysable("views within views")

        def replaced(node: exp.Expr) -> exp.Expr:
            if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
                return node
            node.set("catalog", None)
            sql = self._views.get(_path(node))
            if sql is None:
                return node
            view = parse(sql, dialect=_DIALECT)[0]
            assert view is not None
            inner = self._with_views(view, depth + 1)
            return exp.Subquery(
                this=inner,
                alias=exp.TableAlias(this=exp.to_identifier(node.alias_or_name)),
                joins=node.args.get("joins"),
            )

        return query.transform(replaced)

    def _everything(self, text: str, doubt: str) -> Reading:
        """All of what the text names, through views; of the warehouse when it names nothing."""
        names = self._named_in(text)
        names = {name for name in names if name in self._columns} or set(self._columns)
        scans = (Scan(name, self._columns[name]) for name in sorted(names))
        return Reading(tuple(scans), doubt=doubt)

    def _named_in(self, text: str) -> set[str]:
        plain = text.replace("`", "")
        found = {
            name
            for name in {*self._columns, *self._views}
            if re.search(rf"(?<![\w]){re.escape(name)}(?!\w)", plain)
        }
        for name in found & set(self._views):
            found |= self._named_in(self._views[name])
        return found


class _Walk:
    """Goes down a query's scopes with the columns that are wanted of each."""

    def __init__(self, columns: Mapping[str, frozenset[str]]) -> None:
        self._columns = columns

    def scope(
        self,
        scope: Scope,
        wanted: frozenset[str] | None,
        given: Sequence[exp.Expr],
        changed: str = "",
    ) -> Iterator[Scan]:
        """Scans of a scope, of which `wanted` outputs are read (None: all).

        `given`: conditions on its outputs, from outside.
        """
        if scope.set_operation_scopes:
            yield from self._set_operation(scope, wanted, given)
            return
        select = scope.expression
        if not isinstance(select, exp.Select):
            for inner in (*scope.subquery_scopes, *scope.udtf_scopes, *scope.derived_table_scopes):
                yield from self.scope(inner, None, ())
            return
        unread = _unread(select, wanted)
        used, whole = _used(scope, select, unread)
        conditions = [*_conditions(select), *_moved_in(select, given)]
        for name, (_, source) in scope.selected_sources.items():
            columns = frozenset(used.get(name, ()))
            filters = tuple(_filters_of(name, select, conditions))
            if isinstance(source, exp.Table):
                is_changed = name == changed
                yield self._scan(source, None if name in whole else columns, filters, is_changed)
            elif isinstance(source, Scope):
                yield from self.scope(source, None if name in whole else columns, filters)
        for inner in scope.subquery_scopes:
            if not _is_within(inner.expression, select, unread):
                yield from self.scope(inner, None, ())

    def _set_operation(
        self, scope: Scope, wanted: frozenset[str] | None, given: Sequence[exp.Expr]
    ) -> Iterator[Scan]:
        """Its arms, whose columns go by their place; DISTINCT and EXCEPT compare all of them."""
        operation = scope.expression
        assert isinstance(operation, exp.SetOperation)
        names = operation.named_selects
        merged = not isinstance(operation, exp.Union) or operation.args.get("distinct") is not False
        for arm in scope.set_operation_scopes:
            query = arm.expression
            assert isinstance(query, exp.Query)
            own = dict(zip(names, query.named_selects, strict=True))
            columns = None if wanted is None or merged else frozenset(own[name] for name in wanted)
            moved = [_renamed(each, own) for each in given]
            yield from self.scope(arm, columns, moved)

    def _scan(
        self,
        source: exp.Table,
        columns: frozenset[str] | None,
        filters: tuple[exp.Expr, ...],
        is_changed: bool,
    ) -> Scan:
        name = _path(source)
        if name not in self._columns:
            raise Unanalysable(f"{name}: no table that is known")
        if columns is None:
            columns = self._columns[name]
        unknown = columns - self._columns[name]
        if unknown:
            raise Unanalysable(f"{name} has no {', '.join(sorted(unknown))}")
        return Scan(name, columns, filters, is_changed)


def bound(text: str, parameters: Sequence[tuple[str, str | None]]) -> str:
    """The text with its positional parameters as constants, which they are to BigQuery."""
    values = iter(parameters)
    parts, position = [], 0
    for token in tokenize(text, read=_DIALECT) if parameters else ():
        if token.token_type == TokenType.PLACEHOLDER:
            parts += [text[position : token.start], _literal(*next(values))]
            position = token.end + 1
    return "".join(parts) + text[position:]


def price(reading: Reading, tables: Mapping[str, Table], now: float) -> Bill:
    """Bytes billed for one statement at a moment, seconds since 1970."""
    if reading.is_free:
        return Bill()
    scans: dict[str, list[Scan]] = {}
    for scan in reading.scans:
        scans.setdefault(scan.table, []).append(scan)
    if not scans:
        return Bill(LEAST, LEAST)
    bills = [_of_table(tables.get(name), of_it, now) for name, of_it in scans.items()]
    return sum(bills, Bill())


def _of_table(table: Table | None, scans: Sequence[Scan], now: float) -> Bill:
    """What several mentions of a table cost together; metadata and constants cost the minimum."""
    if table is None:
        return Bill(LEAST, LEAST)
    shares = [_clustered_share(scan.filters, table, now) for scan in scans]
    promise = hope = 0.0
    for partition in table.partitions:
        left: dict[str, float] = {}
        read: set[str] = set()
        for scan, share in zip(scans, shares, strict=True):
            if not _may_hold(scan.filters, table, partition, now):
                continue
            read |= scan.columns
            if scan.is_whole:
                promise += partition.rows * sum(table.widths.values())
            for column in table.widths if scan.is_whole else scan.columns:
                left[column] = min(1.0, left.get(column, 0.0) + share)
        promise += partition.rows * sum(table.widths[column] for column in read)
        hope += partition.rows * sum(table.widths[name] * part for name, part in left.items())
    return Bill(_rounded(promise), _rounded(hope))


def _rounded(size: float) -> float:
    return max(LEAST, math.ceil(size / MB) * MB)


def _may_hold(filters: Iterable[exp.Expr], table: Table, partition: Partition, now: float) -> bool:
    """Whether rows of a partition may meet all conditions, as far as constants tell."""
    if not table.partitioned_by:
        return True
    return all(_may_be(each, table.partitioned_by, partition, now) for each in filters)


def _may_be(condition: exp.Expr, column: str, partition: Partition, now: float) -> bool:
    condition = _bare(condition)
    if isinstance(condition, exp.And):
        return all(_may_be(each, column, partition, now) for each in condition.flatten())
    if isinstance(condition, exp.Or):
        return any(_may_be(_bare(each), column, partition, now) for each in condition.flatten())
    if isinstance(condition, exp.Boolean):
        return bool(condition.this)
    if isinstance(condition, exp.Is) and _is_column(condition.this, column):
        return partition.begins is None or not isinstance(condition.expression, exp.Null)
    if isinstance(condition, exp.Between) and _is_column(condition.this, column):
        low, high = (moment(condition.args[each], now) for each in ("low", "high"))
        return _overlaps(partition, low, high)
    bounds = _bounds(condition, column, now)
    return True if bounds is None else _overlaps(partition, *bounds)


def _bounds(
    condition: exp.Expr, column: str, now: float
) -> tuple[float | None, float | None] | None:
    """The first and last moment that a comparison with a constant leaves; None when it is none."""
    if not isinstance(condition, exp.EQ | exp.GT | exp.GTE | exp.LT | exp.LTE):
        return None
    left, right = _bare(condition.this), _bare(condition.expression)
    is_turned = _is_column(right, column)
    if not is_turned and not _is_column(left, column):
        return None
    at = moment(left if is_turned else right, now)
    if at is None:
        return None
    if isinstance(condition, exp.EQ):
        return at, at
    is_lower = isinstance(condition, exp.GT | exp.GTE) != is_turned
    # A bound that is left out is not in the partition that begins with it.
    just = 1e-6 if isinstance(condition, exp.GT | exp.LT) else 0.0
    return (at + just, None) if is_lower else (None, at - just)


def _overlaps(partition: Partition, low: float | None, high: float | None) -> bool:
    if low is None and high is None:
        return True
    if partition.begins is None or partition.ends is None:
        return False
    return (low is None or low < partition.ends) and (high is None or high >= partition.begins)


def _clustered_share(filters: Iterable[exp.Expr], table: Table, now: float) -> float:
    """The share of rows that constants on the leading clustering columns leave."""
    conditions, share = list(filters), 1.0
    for column in table.clustered_by:
        found = [_share(each, column, table) for each in conditions]
        left = [each for each in found if each is not None]
        if not left:  # the columns after it are sorted within its values
            break
        share *= min(left)
    return share


def _share(condition: exp.Expr, column: str, table: Table) -> float | None:
    """What a condition leaves of the rows; None where it says nothing of the column."""
    condition = _bare(condition)
    if isinstance(condition, exp.And | exp.Or):
        parts = [_share(each, column, table) for each in condition.flatten()]
        found = [each for each in parts if each is not None]
        if isinstance(condition, exp.And):
            return min(found, default=None)
        return min(1.0, sum(found)) if len(found) == len(parts) else None
    left, right = _bare(condition.this), _bare(condition.args.get("expression"))
    if isinstance(condition, exp.In) and _is_column(left, column):
        values = [_text(each) for each in _members(condition)]
        if not values or None in values:
            return None
        return min(1.0, sum(table.share_of_value(column, value) for value in values if value))
    if isinstance(condition, exp.Between) and _is_column(left, column):
        low = _text(condition.args["low"])
        return None if low is None else table.share_of_range(column, low)
    if isinstance(right, exp.Column) and not isinstance(left, exp.Column):
        left, right = right, left
    value = _text(right)
    if value is None or not _is_column(left, column):
        return None
    if isinstance(condition, exp.EQ):
        return min(1.0, table.share_of_value(column, value))
    if isinstance(condition, exp.GT | exp.GTE | exp.LT | exp.LTE | exp.StartsWith | exp.Like):
        return table.share_of_range(column, value)
    return None


def _members(condition: exp.In) -> list[exp.Expr]:
    unnest = condition.args.get("unnest")
    if unnest is not None:
        array = unnest.find(exp.Array)
        return list(array.expressions) if array else []
    return list(condition.expressions)


def moment(expression: exp.Expr | None, now: float) -> float | None:
    """Seconds since 1970 of a constant; None for what is not one, or not understood."""
    expression = _bare(expression)
    if isinstance(expression, exp.Literal) and expression.is_string:
        return _parsed(str(expression.this))
    if isinstance(expression, exp.CurrentTimestamp | exp.CurrentDate):
        return now
    if isinstance(expression, exp.Cast | exp.Timestamp | exp.TsOrDsToTimestamp | exp.Date):
        return moment(expression.this, now)
    if isinstance(expression, exp.TimestampSub | exp.DateSub):
        return _moved(expression, -1, now)
    if isinstance(expression, exp.TimestampAdd | exp.DateAdd):
        return _moved(expression, 1, now)
    if isinstance(expression, exp.TimestampTrunc):
        at = moment(expression.this, now)
        return None if at is None else _truncated(at, str(expression.args["unit"]).lower())
    return None


_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "microsecond": 1e-6}


def _moved(expression: exp.Expr, sign: int, now: float) -> float | None:
    at = moment(expression.this, now)
    amount, unit = _bare(expression.expression), expression.args.get("unit")
    if isinstance(amount, exp.Interval):
        amount, unit = _bare(amount.this), amount.args.get("unit")
    number = _number(amount)
    step = _SECONDS.get(str(unit).lower().removesuffix("s"))
    if at is None or number is None or step is None:
        return None
    return at + sign * number * step


def _number(expression: exp.Expr | None) -> float | None:
    if isinstance(expression, exp.Neg):
        inner = _number(_bare(expression.this))
        return None if inner is None else -inner
    try:
        return float(str(expression.this)) if isinstance(expression, exp.Literal) else None
    except ValueError:
        return None


def _truncated(at: float, unit: str) -> float | None:
    time = dt.datetime.fromtimestamp(at, dt.UTC).replace(minute=0, second=0, microsecond=0)
    if unit == "hour":
        return time.timestamp()
    if unit == "day":
        return time.replace(hour=0).timestamp()
    return time.replace(day=1, hour=0).timestamp() if unit == "month" else None


def _parsed(text: str) -> float | None:
    try:
        time = dt.datetime.fromisoformat(text.strip().replace(" UTC", "+00:00"))
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=dt.UTC)).timestamp()


def _literal(kind: str, value: str | None) -> str:
    if value is None:
        return "null"
    if kind in ("INT64", "INTEGER", "FLOAT64", "FLOAT", "BOOL", "BOOLEAN", "NUMERIC"):
        return value
    quoted = "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
    return f"{kind.lower()} {quoted}" if kind in ("TIMESTAMP", "DATE") else quoted


def _values_of(action: exp.Expr | None) -> list[exp.Expr]:
    """What an UPDATE, an INSERT of a MERGE or a DELETE computes."""
    if isinstance(action, exp.Update):
        return [each.expression for each in action.args.get("expressions") or ()]
    if isinstance(action, exp.Insert):
        values = action.expression
        if values is None:  # INSERT ROW
            raise Unanalysable("a MERGE that inserts a row as it is")
        return list(values.expressions)
    return []


def _named(expressions: Sequence[exp.Expr]) -> list[exp.Expr]:
    """Outputs of a query that uses these; one that uses nothing has a constant."""
    found = [exp.alias_(each.copy(), f"_use{i}") for i, each in enumerate(expressions)]
    return found or [exp.alias_(exp.Literal.number(1), "_use")]


def _unread(select: exp.Select, wanted: frozenset[str] | None) -> set[int]:
    """The outputs that nobody outside reads."""
    if wanted is None or select.args.get("distinct"):
        return set()
    return {id(each) for each in select.expressions if each.alias_or_name not in wanted}


def _used(
    scope: Scope, select: exp.Select, unread: set[int]
) -> tuple[dict[str, set[str]], set[str]]:
    """Columns used of each source, and the sources that are used as whole rows."""
    used: dict[str, set[str]] = {}
    for column in scope.columns:
        if not _is_within(column, select, unread):
            used.setdefault(column.table, set()).add(column.name)
    whole = {
        each.name
        for each in select.find_all(exp.TableColumn)
        if not _is_within(each, select, unread)
    }
    stars = {star.table for star in scope.columns if isinstance(star.this, exp.Star)}
    return used, whole | stars


def _is_within(node: exp.Expr, select: exp.Select, outputs: set[int]) -> bool:
    """Whether a node is part of one of these outputs of a select."""
    at: exp.Expr | None = node
    while outputs and at is not None and at is not select:
        if id(at) in outputs:
            return True
        at = at.parent
    return False


def _conditions(select: exp.Select) -> list[exp.Expr]:
    where = select.args.get("where")
    return _arms(where.this) if where else []


def _arms(condition: exp.Expr) -> list[exp.Expr]:
    condition = _bare(condition)
    if isinstance(condition, exp.And):
        return [arm for each in condition.flatten() for arm in _arms(each)]
    return [condition]


def _moved_in(select: exp.Select, given: Sequence[exp.Expr]) -> Iterator[exp.Expr]:
    """Conditions on outputs as conditions on sources, where rows go through as they are."""
    limits = ("limit", "offset", "qualify")
    if any(select.args.get(each) for each in limits) or select.find(exp.Window):
        return
    outputs = {each.alias_or_name: each.unalias() for each in select.expressions}
    group = select.args.get("group")
    is_grouped = bool(group) or any(each.find(exp.AggFunc) for each in select.expressions)
    keys = {each.sql() for each in group.expressions} if group else set()
    for condition in given:
        sources = {name: outputs.get(name) for name in _column_names(condition)}
        if all(
            isinstance(source, exp.Column) and (not is_grouped or source.sql() in keys)
            for source in sources.values()
        ):
            yield _replaced(condition, sources)


def _filters_of(
    name: str, select: exp.Select, conditions: Sequence[exp.Expr]
) -> Iterator[exp.Expr]:
    """Conditions that hold for every row of a source that takes part in the result."""
    everywhere, is_optional = list(conditions), False
    for join in select.args.get("joins") or ():
        side, is_own = str(join.side).upper(), join.this.alias_or_name == name
        arms = _arms(join.args["on"]) if join.args.get("on") else []
        if side == "":
            everywhere += arms
            continue
        is_outer = side == "FULL" or (side == "LEFT") == is_own
        is_optional |= is_outer
        if is_outer and side != "FULL":
            yield from (each for each in arms if _is_of(each, name))
    for condition in everywhere:
        # The columns of a row that is missing are NULL: to ask for that takes all rows.
        if _is_of(condition, name) and not (is_optional and condition.find(exp.Is, exp.Coalesce)):
            yield condition


def _is_of(condition: exp.Expr, name: str) -> bool:
    """Whether a condition is of columns of this source alone."""
    if condition.find(exp.Query):
        return False
    tables = {column.table for column in condition.find_all(exp.Column)}
    return tables == {name}


def _column_names(condition: exp.Expr) -> set[str]:
    return {column.name for column in condition.find_all(exp.Column)}


def _replaced(condition: exp.Expr, sources: Mapping[str, exp.Expr | None]) -> exp.Expr:
    def take(node: exp.Expr) -> exp.Expr:
        source = sources.get(node.name) if isinstance(node, exp.Column) else None
        return node if source is None else source.copy()

    return condition.transform(take)


def _renamed(condition: exp.Expr, names: Mapping[str, str]) -> exp.Expr:
    return _replaced(condition, {name: exp.column(own) for name, own in names.items()})


def _bare(expression: exp.Expr | None) -> exp.Expr:
    while isinstance(expression, exp.Paren):
        expression = expression.this
    return expression if isinstance(expression, exp.Expr) else exp.Null()


def _is_column(expression: exp.Expr | None, name: str) -> bool:
    return isinstance(expression, exp.Column) and expression.name == name


def _text(expression: exp.Expr | None) -> str | None:
    expression = _bare(expression)
    return str(expression.this) if isinstance(expression, exp.Literal | exp.RawString) else None


def _path(table: exp.Table) -> str:
    return ".".join(part for part in (table.db, table.name) if part)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__

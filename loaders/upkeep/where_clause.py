"""A condition that an operator writes in SQL: one boolean expression, and nothing else.

This is no guard against the operator, whose credentials may do to the warehouse what they like:
it keeps a slip, or text pasted from elsewhere, from saying more than which rows are meant.
"""

from __future__ import annotations

from collections.abc import Collection

from loaders.errors import UsageError


def check_condition(condition: str, columns: Collection[str], dialect: str, where: str) -> None:
    """Raise UsageError, naming the option `where`, for what is no condition over these columns.

    `dialect` is duckdb or bigquery. No statement may follow, no comment hide the rest, no
    parenthesis close early, no subquery read another table.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    text = f"select 1 from objects where ({condition}\n)"
    try:
        tokens = sqlglot.tokenize(text, read=dialect)
        statements = sqlglot.parse(text, read=dialect)
    except SqlglotError as error:
        raise UsageError(
            f"{where}: expected a condition in SQL, got what does not parse"
        ) from error
    if any(token.comments for token in tokens):
        raise UsageError(f"{where}: expected a condition in SQL, got a comment in it")
    statement = statements[0]
    found = statement.args.get("where") if isinstance(statement, exp.Select) else None
    whole = None if found is None else found.this
    clauses = {name for name, value in statement.args.items() if value} if statement else set()
    if (
        len(statements) != 1
        or not isinstance(whole, exp.Paren)
        or not clauses <= {"kind", "expressions", "from", "from_", "where"}
    ):
        raise UsageError(f"{where}: expected one condition in SQL, got more than that")
    if whole.find(exp.Placeholder, exp.Parameter) is not None:
        raise UsageError(f"{where}: expected a condition without parameters, got one")
    if whole.find(exp.Query) is not None:
        raise UsageError(f"{where}: expected a condition over one row, got a subquery")
    known = {name.lower() for name in columns}
    for column in whole.find_all(exp.Column):
        if column.table or column.name.lower() not in known:
            raise UsageError(
                f"{where}: {column.sql()}: expected columns of raw_objects:"
                f" {', '.join(sorted(known))}"
            )

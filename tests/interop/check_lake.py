#!/usr/bin/env python3
"""Reads a lake with the deltalake package and asks playhead for the same numbers.

Usage: check_lake.py LAKE PLAYHEAD

LAKE is a data folder laid out as LAKE/<layer>/<table>; PLAYHEAD is the binary. For every table the
row count and the sum of every integer column must be what `playhead sql` says, so that what we
write is what any other reader of Delta tables reads. Exits 1 naming the first differences.
"""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

LAYERS = ("bronze", "silver", "gold", "ops")

# More differences than this hide the first ones.
DIFFERENCES_SHOWN_MAX = 10

# One query reads a table of a small lake; longer means that something hangs.
QUERY_SECONDS_MAX = 120


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    lake, playhead = Path(sys.argv[1]), sys.argv[2]
    tables = find_tables(lake)
    if not tables:
        sys.exit(f"no Delta table below {lake}: expected {lake}/<layer>/<table>/_delta_log")
    differences = []
    for layer, table in tables:
        differences += check_table(lake, playhead, layer, table)
    for difference in differences[:DIFFERENCES_SHOWN_MAX]:
        print(f"DIFFERENT {difference}")
    if differences:
        sys.exit(f"{len(differences)} differences in {len(tables)} tables")
    print(f"{len(tables)} tables read alike by deltalake and playhead")


def find_tables(lake):
    """(layer, table) of every Delta table, in a fixed order."""
    logs = (log for layer in LAYERS for log in sorted((lake / layer).glob("*/_delta_log")))
    return [(log.parent.parent.name, log.parent.name) for log in logs]


def check_table(lake, playhead, layer, table):
    name = f"{layer}.{table}"
    delta = DeltaTable(str(lake / layer / table))
    rows = delta.to_pyarrow_table()
    # Gold over SQL also holds the windows that are still open, computed live.
    is_windowed = layer == "gold" and "is_final" in rows.column_names
    if is_windowed:
        rows = rows.filter(pc.field("is_final"))
    expected = measure(rows)
    print(f"{name}: version {delta.version()}, {rows.num_rows} rows, {len(expected) - 1} sums")
    try:
        found = ask(playhead, lake, name, list(expected), is_windowed)
    except AskError as error:
        return [f"{name}: {error}"]
    return [
        f"{name}.{column}: deltalake {expected[column]}, playhead {found[column]}"
        for column in expected
        if expected[column] != found[column]
    ]


def measure(rows):
    """Row count under `*`, then the sum of every integer column."""
    measured = {"*": rows.num_rows}
    for field in rows.schema:
        if pa.types.is_integer(field.type):
            exact = pc.sum(rows.column(field.name).cast(pa.decimal128(38, 0))).as_py()
            measured[field.name] = None if exact is None else as_int64(int(exact))
    return measured


def as_int64(number):
    """Where 64 bits overflow, SQL's sum wraps around."""
    return (number + 2**63) % 2**64 - 2**63


class AskError(Exception):
    """playhead gave no usable answer."""


def ask(playhead, lake, name, columns, only_final):
    """The same measures from playhead's SQL."""
    aliases = {column: f"m{index}" for index, column in enumerate(columns)}
    terms = ", ".join(f"{measure_sql(column)} AS {alias}" for column, alias in aliases.items())
    query = f"SELECT {terms} FROM {name}" + (" WHERE is_final" if only_final else "")
    command = [playhead, "sql", "--data", str(lake), "--format", "json", query]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=QUERY_SECONDS_MAX
        )
    except subprocess.TimeoutExpired as error:
        raise AskError(f"no answer within {QUERY_SECONDS_MAX} s: {query}") from error
    if done.returncode != 0:
        raise AskError(f"playhead sql exits {done.returncode}: {done.stderr.strip()}")
    try:
        # A JSON writer may leave out columns that are null.
        row = json.loads(done.stdout)[0]
        return {column: whole(row.get(alias)) for column, alias in aliases.items()}
    except (ValueError, LookupError, AttributeError) as error:
        raise AskError(f"expected a JSON array with one object: {done.stdout[:200]!r}") from error


def measure_sql(column):
    if column == "*":
        return "count(*)"
    quoted = column.replace('"', '""')
    return f'sum("{quoted}")'


def whole(value):
    return None if value is None else int(value)


if __name__ == "__main__":
    main()

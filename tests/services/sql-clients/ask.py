"""Asks one question by one driver, prepared and with a typed parameter; prints the rows as JSON.

usage: ask.py psycopg|asyncpg|pg8000 HOST PORT
"""

import asyncio
import datetime
import json
import sys

FROM = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
QUESTION = (
    "SELECT window_start, sum(attempts)::bigint AS attempts, sum(playing_ms)::float8 / 1000 AS seconds, "
    "bool_and(is_final) AS is_final FROM gold.playback_1m WHERE window_start >= {} GROUP BY 1 ORDER BY 1"
)


def by_psycopg(host, port):
    import psycopg

    with psycopg.connect(host=host, port=port, dbname="playhead", user="me") as connection:
        rows = connection.execute(QUESTION.format("%s"), (FROM,)).fetchall()
        with connection.cursor(binary=True) as cursor:
            for _ in range(7):  # from the fifth on psycopg prepares it
                cursor.execute(QUESTION.format("%s"), (FROM,), prepare=True)
                assert cursor.fetchall() == rows, "binary and text differ"
        return rows


def by_asyncpg(host, port):
    import asyncpg

    async def ask():
        async with asyncpg.create_pool(host=host, port=port, database="playhead", user="me", min_size=1) as pool:
            for _ in range(2):  # the pool resets the connection in between
                rows = await pool.fetch(QUESTION.format("$1"), FROM)
            return [tuple(row) for row in rows]

    return asyncio.run(ask())


def by_pg8000(host, port):
    import pg8000.native

    connection = pg8000.native.Connection("me", host=host, port=port, database="playhead")
    rows = connection.run(QUESTION.format(":start"), start=FROM)
    connection.close()
    return rows


def main():
    driver, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rows = {"psycopg": by_psycopg, "asyncpg": by_asyncpg, "pg8000": by_pg8000}[driver](host, port)
    print(json.dumps([[start.isoformat(), *rest] for start, *rest in rows]))


main()

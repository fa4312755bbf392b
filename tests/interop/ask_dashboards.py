#!/usr/bin/env python3
"""Asks every question of every dashboard over the wire, as Grafana's backend does.

Usage: ask_dashboards.py DASHBOARDS LAKE PLAYHEAD

Starts `PLAYHEAD serve` over LAKE, puts variables and macros into the SQL of each panel the way Grafana
does (written from its documentation, apart from the one in the program), and asks by psycopg: in text
over the simple protocol, as Grafana does, and in binary over the extended one. Both must give the same
number of rows and columns of types that Grafana draws. The time range is that of the lake's gold. Exits 1 naming
dashboard, panel and reason.
"""

import datetime
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

# A debug build on a busy machine opens a lake in seconds; longer means that something hangs.
START_SECONDS_MAX = 60

# Object ids of types: timestamp with and without zone; whole, floating and exact numbers; texts; boolean.
TIMES = {1114, 1184}
NUMBERS = {20, 21, 23, 700, 701, 1700}
TEXTS = {25, 1043}
BOOLEAN = 16

ANSWERING = re.compile(r"answering SQL on postgres://(?:[^@/ ]*@)?([^/ ]+)")


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    dashboards, lake, playhead = sys.argv[1:]
    files = sorted(Path(dashboards).glob("*.json"))
    if not files:
        sys.exit(f"no dashboard in {dashboards}")
    with tempfile.TemporaryDirectory() as folder:
        server, address = serve(playhead, lake, Path(folder))
        try:
            host, port = address.rsplit(":", 1)
            with psycopg.connect(host=host, port=port, dbname="playhead", user="playhead", autocommit=True) as connection:
                asked, complaints = ask_all(connection, files)
        finally:
            server.terminate()
            server.wait(timeout=START_SECONDS_MAX)
    for complaint in complaints:
        print(f"WRONG {complaint}")
    if complaints or asked == 0:
        sys.exit(f"{len(complaints)} of {asked} questions")
    print(f"{asked} questions of {len(files)} dashboards are answered by both protocols")


def serve(playhead, lake, folder):
    """Starts the endpoint on a free port; gives the process and its address."""
    settings = folder / "serve.yaml"
    settings.write_text("postgres: {listen: '127.0.0.1:0'}\nhttp: {listen: off}\n")
    log = folder / "serve.log"
    command = [playhead, "serve", "--data", str(Path(lake).resolve()), "--settings", str(settings)]
    with log.open("w") as errors:
        server = subprocess.Popen(command, stderr=errors, cwd=folder)
    give_up = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < give_up and server.poll() is None:
        if found := ANSWERING.search(log.read_text()):
            return server, found[1]
        time.sleep(0.1)
    server.kill()
    sys.exit(f"{' '.join(command)} does not answer:\n{log.read_text()}")


def ask_all(connection, files):
    bounds = connection.execute("SELECT min(window_start), max(window_end) FROM gold.playback_1m").fetchone()
    asked, complaints = 0, []
    for file in files:
        dashboard = json.loads(file.read_text())
        values = chosen(connection, dashboard, bounds)
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                asked += 1
                text = expanded(target["rawSql"], values, bounds)
                if reason := fault(connection, text, target["format"]):
                    complaints.append(f"{file.name}, panel {panel['id']} {panel['title']}, query {target['refId']}: {reason}")
    return asked, complaints


def chosen(connection, dashboard, bounds):
    """What Grafana puts in for each variable of a dashboard that was just opened."""
    values = {}
    for variable in dashboard["templating"]["list"]:
        name = variable["name"]
        if variable.get("includeAll"):
            values[name] = variable["allValue"]
        elif variable["type"] == "query":
            # A choice of one: the first row of its query.
            values[name] = connection.execute(expanded(variable["query"], values, bounds)).fetchone()[0]
        else:
            values[name] = variable["current"]["value"].replace("'", "''")
    return values


def expanded(text, values, bounds):
    for name, value in values.items():
        text = re.sub(rf"\$\{{{name}\}}|\${name}\b", lambda _: value, text)
    start, end = (bound.astimezone(datetime.timezone.utc) for bound in bounds)
    literal = [f"'{bound:%Y-%m-%dT%H:%M:%SZ}'" for bound in (start, end)]
    text = text.replace("$__interval", "5m")
    text = text.replace("$__timeFrom()", literal[0]).replace("$__timeTo()", literal[1])
    text = text.replace("$__unixEpochFrom()", str(int(start.timestamp()))).replace("$__unixEpochTo()", str(int(end.timestamp())))
    text = re.sub(r"\$__timeFilter\(([^)]*)\)", rf"\1 BETWEEN {literal[0]} AND {literal[1]}", text)
    text = re.sub(r"\$__timeGroup\(([^,)]*), *'?(\d+)([mhd])'?\)(,?)", group, text)
    if left := re.search(r"\$\w+", text):
        sys.exit(f"this script does not know {left[0]}: teach it")
    return text


def group(found):
    seconds = int(found[2]) * {"m": 60, "h": 3600, "d": 86400}[found[3]]
    alias = ' AS "time",' if found[4] else ""
    return f"floor(extract(epoch from {found[1]})/{seconds})*{seconds}{alias}"


def fault(connection, text, form):
    """What is wrong with the answer to a question; nothing if it is right."""
    try:
        with psycopg.ClientCursor(connection) as cursor:
            simple = cursor.execute(text.replace("%", "%%")).fetchall()
        with connection.cursor(binary=True) as cursor:
            extended = cursor.execute(text.encode(), prepare=True).fetchall()
            columns = [(column.name, column.type_code) for column in cursor.description]
    except psycopg.Error as error:
        return str(error)
    if len(simple) != len(extended):
        return f"{len(simple)} rows in text, {len(extended)} in binary"
    allowed = TIMES | NUMBERS | TEXTS | {BOOLEAN}
    for name, code in columns:
        if name == "time":
            fits = code in TIMES | NUMBERS
        elif form == "time_series":
            fits = code in (TEXTS if name == "metric" else NUMBERS)
        else:
            fits = code in allowed
        if not fits:
            return f"column {name} has the type {code}"
    if form == "time_series" and "time" not in dict(columns):
        return "a time series without time"
    return None


if __name__ == "__main__":
    main()

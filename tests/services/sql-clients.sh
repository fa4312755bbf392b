# shellcheck shell=bash disable=SC2034,SC2154 # read by, or set by, common.sh and service
# A Python with the three drivers that people use for PostgreSQL: psycopg, asyncpg, pg8000. No server.

installed_as="sql-clients-1"

runtime() {
    if ! python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then
        echo "sql-clients: needs python3 with venv and pip (Debian: apt-get install python3-venv)" >&2
        return 1
    fi
}

install() {
    # The scripts of a virtual environment hold its path and this folder is renamed: `python` works anyhow.
    python3 -m venv "$1" || return 1
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$here/sql-clients/constraints.txt" "psycopg[binary]" asyncpg pg8000
}

command_path() {
    available && echo "$cache/$installed_as/bin/python"
}

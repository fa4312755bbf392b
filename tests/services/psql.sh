# shellcheck shell=bash disable=SC2034,SC2154 # read by, or set by, common.sh and service
# PostgreSQL's own client. A Debian package puts it on the PATH; this script installs nothing.

available() {
    if ! command -v psql >/dev/null; then
        echo "psql: not installed (Debian: apt-get install postgresql-client)" >&2
        return 1
    fi
}

command_path() {
    available && command -v psql
}

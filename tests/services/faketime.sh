# shellcheck shell=bash disable=SC2034,SC2154 # read by, or set by, common.sh and service
# libfaketime: moves the clock of a service while it runs (kinesalite --fake-time). A Debian package;
# PLAYHEAD_LIBFAKETIME may name another copy. This script installs nothing.

available() {
    if [ -z "$(library)" ]; then
        echo "faketime: no libfaketime.so.1 (Debian: apt-get install libfaketime; or set PLAYHEAD_LIBFAKETIME)" >&2
        return 1
    fi
}

library() {
    local candidate
    for candidate in "${PLAYHEAD_LIBFAKETIME:-}" /usr/lib/*/faketime/libfaketime.so.1 /usr/lib/faketime/libfaketime.so.1; do
        if [ -f "$candidate" ]; then
            echo "$candidate"
            return
        fi
    done
}

command_path() {
    available && library
}

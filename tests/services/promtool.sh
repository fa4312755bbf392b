# shellcheck shell=bash disable=SC2034,SC2154 # read by, or set by, common.sh and service
# promtool: checks what /metrics says and the alert rules. A Debian package puts it on the PATH; this
# script installs nothing.

available() {
    if ! command -v promtool >/dev/null; then
        echo "promtool: not installed (Debian: apt-get install prometheus)" >&2
        return 1
    fi
}

command_path() {
    available && command -v promtool
}

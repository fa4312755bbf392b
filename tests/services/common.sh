# shellcheck shell=bash disable=SC2034,SC2154 # read by, or set by, common.sh and service
# What every component shares: the cache, ports, starting with a bound, stopping.
#
# A component's file sets `installed_as` (its folder in the cache, with the version) and defines
#   runtime     exit 1 with the reason on stderr if a program it runs on is missing
#   install     put it into the folder "$1"; only called when it is not there; must return its failures, as
#               `set -e` does not hold in it
#   launch      exec the server; $port, $folder, $fake_time and $behind are set, the log is stdout and stderr
#   ready       exit 0 once it answers on $port
#   address     print what a client is told
# A tool that is no server (promtool) defines only `available` and its own commands.

# A JVM on a machine of two cores under load needs up to half a minute; then something is wrong.
start_seconds_max=90

# The slowest is moto: two minutes on a busy machine.
install_seconds_max=600

# A server that was asked to end writes its files first; after that it is killed.
stop_seconds_max=15

# Below the range from which the kernel takes the local ports of connections (32768 and up), so that a
# client cannot take the port of a service that is down for a moment.
port_first=20000
port_last=31999

# Somebody may take a port between the look and the start.
start_attempts_max=3

# Of twelve thousand ports a few are taken; as many misses in a row mean that something else is wrong.
port_looks_max=100

# A process that ends lets go of its port well within this.
port_seconds_max=5

# Lines of the server's log shown when it does not start.
log_lines_shown=30

fail() {
    printf '%s: %s\n' "${name:-service}" "$*" >&2
    exit 1
}

# ---- installing ----

available() {
    runtime || return 1
    if [ ! -d "$cache/$installed_as" ]; then
        echo "$name: $installed_as is not in $cache; run: tests/services/service $name install" >&2
        return 1
    fi
}

# Installs beside the final folder and renames, so that a broken download never looks like an installation.
install_once() {
    declare -F install >/dev/null || { available; return; }
    [ ! -d "$cache/$installed_as" ] || return 0
    runtime || exit 1
    mkdir -p "$cache"
    exec 9>"$cache/$installed_as.lock"
    flock -w "$install_seconds_max" 9 || fail "somebody else has been installing $installed_as for $install_seconds_max s"
    if [ ! -d "$cache/$installed_as" ]; then
        echo "$name: installing $installed_as into $cache (once)" >&2
        rm -rf "$cache/$installed_as.partial"
        mkdir "$cache/$installed_as.partial"
        install "$cache/$installed_as.partial" >&2 || fail "cannot install $installed_as; see the lines above"
        mv "$cache/$installed_as.partial" "$cache/$installed_as"
    fi
    exec 9>&-
}

# ---- ports ----

port_answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

free_port() {
    local candidate look
    for ((look = 0; look < port_looks_max; look++)); do
        candidate=$((port_first + (RANDOM * 32768 + RANDOM) % (port_last - port_first + 1)))
        if ! port_answers "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "found no free port between $port_first and $port_last"
}

# The port of a process that is just ending is not free yet.
wait_for_port() {
    local deadline=$((SECONDS + port_seconds_max))
    while port_answers "$1"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

# Exit 0 if GET of the path answers 200.
http_ok() {
    local status
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' "$2" >&3
    read -r -t 5 _ status _ <&3 || status=none
    exec 3>&-
    [ "$status" = 200 ]
}

# ---- processes: a process is known by its id and the moment it started, since ids are used again ----

started_at() {
    local stat threads
    stat="$(cat "/proc/$1/stat" 2>/dev/null)" || return 1
    # The name in brackets may hold spaces; what follows it starts with field 3.
    read -r -a stat <<<"${stat##*) }"
    # A zombie has ended, but its other threads may still hold its sockets.
    if [ "${stat[0]}" = Z ]; then
        threads=("/proc/$1/task"/*)
        [ "${#threads[@]}" -gt 1 ] || return 1
    fi
    echo "${stat[19]}"
}

is_running() {
    [ "$(started_at "$1")" = "$2" ]
}

# Sets $pid and $born from the folder; exit 1 if that process is gone.
find_process() {
    local folder="$1"
    [ -f "$folder/service.pid" ] || return 1
    read -r pid born <"$folder/service.pid"
    is_running "$pid" "$born"
}

wait_for_end() {
    local deadline=$((SECONDS + $3))
    while is_running "$1" "$2"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

# ---- start, kill, stop ----

start_service() {
    declare -F launch >/dev/null || fail "is a tool, not a server; see: tests/services/service"
    local owner="" given_port="" given_folder="" attempt
    fake_time="" behind="" port="" folder=""
    while [ $# -gt 0 ]; do
        case "$1" in
            --port) given_port="${2:?--port needs a number}" && shift 2 ;;
            --folder) given_folder="${2:?--folder needs a path}" && shift 2 ;;
            --owner) owner="${2:?--owner needs a process id}" && shift 2 ;;
            --behind) behind="${2:?--behind needs an address}" && shift 2 ;;
            --fake-time) fake_time=yes && shift ;;
            *) fail "unknown option $1" ;;
        esac
    done
    [[ "$given_port" =~ ^[0-9]*$ ]] || fail "--port needs a number, not $given_port"
    install_once
    prepare_folder "$given_folder"
    # A service that was killed comes back where its clients look for it.
    if [ -z "$given_port" ] && [ -f "$folder/service.port" ]; then
        given_port="$(cat "$folder/service.port")"
    fi
    for ((attempt = 1; attempt <= start_attempts_max; attempt++)); do
        port="${given_port:-$(free_port)}"
        wait_for_port "$port" || fail "port $port is taken by somebody else"
        if start_once; then
            echo "$port" >"$folder/service.port"
            [ -z "$owner" ] || watch_owner "$owner"
            printf '%s\n' "name=$name" "address=$(address)" "port=$port" "pid=$pid" "folder=$folder" "log=$folder/service.log"
            [ ! -f "$folder/service.behind" ] || echo "behind=$(cat "$folder/service.behind")"
            return
        fi
        [ -z "$given_port" ] || break
    done
    tail -n "$log_lines_shown" "$folder/service.log" >&2
    fail "ended before it answered; its log is $folder/service.log"
}

prepare_folder() {
    if [ -z "$1" ]; then
        folder="$(mktemp -d "${TMPDIR:-/tmp}/playhead-$name-XXXXXXXX")"
        touch "$folder/service.made"
        return
    fi
    mkdir -p "$1"
    folder="$(cd "$1" && pwd)"
    ! find_process "$folder" || fail "already runs in $folder as process $pid"
}

# Exit 1 if the server ended before it answered; a server that hangs is a failure at once.
start_once() {
    local deadline=$((SECONDS + start_seconds_max))
    [ ! -f "$folder/service.log" ] || mv "$folder/service.log" "$folder/service.log.old"
    # A session of its own: Ctrl-C on the tests must not reach it before the tests have cleaned up.
    export name here cache port folder fake_time behind
    setsid bash "$here/launch.sh" </dev/null >"$folder/service.log" 2>&1 &
    pid=$!
    born="$(started_at "$pid")" || return 1
    echo "$pid $born" >"$folder/service.pid"
    until ready 2>/dev/null; do
        is_running "$pid" "$born" || return 1
        if [ "$SECONDS" -ge "$deadline" ]; then
            kill -9 "$pid"
            tail -n "$log_lines_shown" "$folder/service.log" >&2
            fail "did not answer on port $port within $start_seconds_max s; its log is $folder/service.log"
        fi
        sleep 0.1
    done
    # Somebody else may have answered on our port.
    is_running "$pid" "$born"
}

# A test run that is killed cannot clean up: look after the service for it.
watch_owner() {
    local owner="$1" owner_born
    owner_born="$(started_at "$owner")" || fail "no process $owner"
    export -f started_at is_running
    # shellcheck disable=SC2016 # the inner shell expands it
    setsid bash -c '
        while is_running "$1" "$2" && is_running "$3" "$4"; do sleep 1; done
        is_running "$1" "$2" || ! is_running "$3" "$4" || exec "$5" "$6" stop "$7"
    ' watch "$owner" "$owner_born" "$pid" "$born" "$here/service" "$name" "$folder" </dev/null >/dev/null 2>&1 &
}

kill_service() {
    local folder="${1:?kill needs the folder}"
    find_process "$folder" || fail "no process of ours runs in $folder"
    kill -9 "$pid"
    wait_for_end "$pid" "$born" "$stop_seconds_max" || fail "process $pid outlives kill -9"
}

stop_service() {
    local folder="${1:?stop needs the folder}"
    if find_process "$folder"; then
        kill "$pid"
        if ! wait_for_end "$pid" "$born" "$stop_seconds_max"; then
            kill -9 "$pid"
            wait_for_end "$pid" "$born" "$stop_seconds_max" || fail "process $pid outlives kill -9"
        fi
    fi
    if [ -f "$folder/service.made" ]; then
        rm -rf "$folder"
    else
        rm -f "$folder/service.pid"
    fi
}

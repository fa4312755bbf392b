# shellcheck shell=bash disable=SC2034,SC2154 # read by, or set by, common.sh and service
# kinesalite: Kinesis for flow, restarts, expiry of iterators and load. Knows StreamName only, no
# UpdateShardCount, no ChildShards: that is what kinesis-local is for.

kinesalite_version=3.3.3
# Its 43 dependencies as they stood on this day.
kinesalite_dependencies_before=2026-11-01

installed_as="kinesalite-$kinesalite_version"

# shellcheck source=tests/services/node.sh
source "$here/node.sh"

# Its native module comes built inside the package.
install() {
    install_npm "$1" "kinesalite@$kinesalite_version" "$kinesalite_dependencies_before"
}

launch() {
    if [ "$fake_time" = yes ]; then
        fake_the_clock
    fi
    exec node "$cache/$installed_as/node_modules/kinesalite/cli.js" --port "$port" --path "$folder/streams" \
        --createStreamMs 5 --deleteStreamMs 5 --updateStreamMs 5 --shardLimit 100
}

# Its clock is the real one plus what stands in offset.txt, for instance +301; read at every look.
fake_the_clock() {
    local library
    library="$("$here/service" faketime path)"
    [ -f offset.txt ] || echo "+0" >offset.txt
    export LD_PRELOAD="$library" FAKETIME_TIMESTAMP_FILE="$folder/offset.txt" FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1
}

ready() {
    port_answers "$port"
}

address() {
    echo "http://127.0.0.1:$port"
}

# shellcheck shell=bash disable=SC2034,SC2154 # read by, or set by, common.sh and service
# kinesis-local: Kinesis for resharding the modern way (UpdateShardCount, ChildShards, ShardFilter,
# StreamARN). Slow and hungry: about 130 puts a second, 1 GB after 20,000 records; keep below 2,000.

kinesis_local_version=0.6.2
# It has no dependencies.
kinesis_local_dependencies_before=2026-11-01

installed_as="kinesis-local-$kinesis_local_version"

# shellcheck source=tests/services/node.sh
source "$here/node.sh"

install() {
    install_npm "$1" "kinesis-local@$kinesis_local_version" "$kinesis_local_dependencies_before"
}

launch() {
    local package="$cache/$installed_as/node_modules/kinesis-local"
    # It insists on a TLS port too.
    export KINESIS_MOCK_PLAIN_PORT="$port" KINESIS_MOCK_CERT_PATH="$package/server.json"
    KINESIS_MOCK_TLS_PORT="$(free_port)"
    export KINESIS_MOCK_TLS_PORT
    export CREATE_STREAM_DURATION=10ms DELETE_STREAM_DURATION=10ms UPDATE_SHARD_COUNT_DURATION=50ms
    export SPLIT_SHARD_DURATION=50ms MERGE_SHARDS_DURATION=50ms
    exec node "$package/main.js"
}

ready() {
    http_ok "$port" /healthcheck
}

address() {
    echo "http://127.0.0.1:$port"
}

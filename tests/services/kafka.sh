# shellcheck shell=bash disable=SC2034,SC2154 # read by, or set by, common.sh and service
# A real Apache Kafka broker (KRaft, broker and controller in one process) from Maven Central.
# Measured 2026-11-21: 2.5 s of CPU to start, as long after kill -9; 240 MB, 330 MB after 170 MB of records.

kafka_version=4.3.1
log4j_version=2.25.4
dependency_plugin_version=3.8.1
# Since 4.0 the broker wants it.
java_version_min=17

# A tool that finds no broker gives up after a minute; measuring a rate may take longer.
tool_seconds_max=300

installed_as="kafka-$kafka_version"
jars="$cache/$installed_as"

runtime() {
    local version
    version="$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')" || true
    if [ "${version:-0}" -lt "$java_version_min" ]; then
        echo "kafka: needs Java $java_version_min or newer (Debian: apt-get install openjdk-17-jre-headless)" >&2
        return 1
    fi
    if [ ! -d "$jars" ] && ! command -v mvn >/dev/null; then
        echo "kafka: needs Maven to fetch Kafka $kafka_version (Debian: apt-get install maven)" >&2
        return 1
    fi
}

install() {
    # Maven may write beside the pom, so it gets a copy.
    local work status=0
    work="$(mktemp -d)"
    cp "$here/kafka/pom.xml" "$work"
    mvn --quiet --batch-mode -Dstyle.color=never --file "$work/pom.xml" \
        "-Dkafka.version=$kafka_version" "-Dlog4j.version=$log4j_version" \
        "org.apache.maven.plugins:maven-dependency-plugin:$dependency_plugin_version:copy-dependencies" \
        -DincludeScope=runtime "-DoutputDirectory=$1" || status=$?
    rm -rf "$work"
    return "$status"
}

# Without the optimising compiler a start costs 2.5 s of CPU instead of 4.1 s, and tests start more than they load.
jvm=(java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError
    "-Dlog4j2.configurationFile=file:$here/kafka/log4j2.properties" -cp "$jars/*")

tool() {
    timeout "$tool_seconds_max" "${jvm[@]}" -Xmx256m -Dplayhead.log.level=error "$@"
}

launch() {
    if [ ! -f kafka.properties ]; then
        settings >kafka.properties
    fi
    # The port may be another one after a restart; that of the controller stays, the voters know it.
    sed -i "s|PLAINTEXT://127.0.0.1:[0-9]*|PLAINTEXT://127.0.0.1:$port|" kafka.properties
    if [ ! -f log/meta.properties ]; then
        tool kafka.tools.StorageTool format --standalone --cluster-id "$(cluster_id)" --config kafka.properties
    fi
    exec "${jvm[@]}" -Xmx512m kafka.Kafka kafka.properties
}

# 16 random bytes in base64 as Kafka writes ids: with - and _, without padding.
cluster_id() {
    head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d =
}

settings() {
    local controller_port listeners advertised behind_port
    controller_port="$(free_port)"
    listeners="PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port"
    advertised="PLAINTEXT://127.0.0.1:$port"
    if [ -n "$behind" ]; then
        # Clients that come through the proxy must be told to come back through it; tools go straight.
        behind_port="$(free_port)"
        listeners+=",BEHIND://127.0.0.1:$behind_port"
        advertised+=",BEHIND://$behind"
        echo "127.0.0.1:$behind_port" >service.behind
    fi
    cat <<EOF
process.roles=broker,controller
node.id=1
listeners=$listeners
advertised.listeners=$advertised
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,BEHIND:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$controller_port
log.dirs=$folder/log
# One broker holds everything.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# A test says which topics there are; a mistyped name must not become a topic.
auto.create.topics.enable=false
# After kill -9 the controller refuses the broker until its old session has run out (9 s by default).
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# Tests do not wait for a third member of a group, and make members vanish quickly.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=200
# Retention of a topic shows within seconds instead of five minutes.
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=1000
# 128 MB by default; a broker for tests has little to compact.
log.cleaner.dedupe.buffer.size=8388608
EOF
}

ready() {
    grep -q 'Kafka Server started' "$folder/service.log"
}

address() {
    echo "127.0.0.1:$port"
}

# ---- its own tools ----

command_run() {
    [ $# -ge 1 ] || usage
    tool "$@"
}

command_topic() {
    [ $# -ge 3 ] || usage
    local address="$1" topic="$2" partitions="$3" setting settings=()
    shift 3
    for setting in "$@"; do
        settings+=(--config "$setting")
    done
    tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$address" \
        --create --topic "$topic" --partitions "$partitions" "${settings[@]}"
}

command_add_partitions() {
    [ $# -eq 3 ] || usage
    tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$1" --alter --topic "$2" --partitions "$3"
}

# Makes every record before the offset unreadable, as retention would.
command_delete_records() {
    [ $# -eq 4 ] || usage
    local wanted
    wanted="$(mktemp)"
    printf '{"version":1,"partitions":[{"topic":"%s","partition":%s,"offset":%s}]}' "$2" "$3" "$4" >"$wanted"
    tool org.apache.kafka.tools.DeleteRecordsCommand --bootstrap-server "$1" --offset-json-file "$wanted"
    rm -f "$wanted"
}

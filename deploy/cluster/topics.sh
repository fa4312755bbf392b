#!/usr/bin/env bash
# Creates every topic of a cluster that is not there yet. BROKERS, PARTITIONS and REPLICAS come from the environment.
#
# The six topics of silver have one number of partitions: a session has the same one in all of them. Rows are kept for a
# week: that is how far back a changed pipeline is computed anew.
set -euo pipefail

silver="player_events playback_intervals playback_sessions ended_sessions failed_sessions cdn_requests"
gold="audience_1m cdn_1m cdn_objects_1m concurrency_1m ended_1m errors_1m latency_1m playback_1m"

create() {
  /opt/kafka/bin/kafka-topics.sh --bootstrap-server "$BROKERS" --create --if-not-exists --topic "$1" \
    --partitions "$PARTITIONS" --replication-factor "$REPLICAS" --config retention.ms=604800000
}

create player-events
for name in $silver; do create "playhead.silver.$name"; done
for name in $gold; do create "playhead.gold.$name"; done

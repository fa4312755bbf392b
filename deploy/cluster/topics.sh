#!/usr/bin/env bash
# Creates every topic of a cluster that is not there yet. BROKERS, PARTITIONS, SILVER_PARTITIONS and REPLICAS come from
# the environment.
#
# PARTITIONS is how many ingest daemons there can be. SILVER_PARTITIONS is one number for the six topics of silver (a session
# has the same one in all of them) and not more than arroyo.parallelism (a subtask that reads two takes rows for late). Rows
# are kept for a week: that is how far back a changed pipeline is computed anew; segments of an hour, so that all partitions
# begin at about the same time. Results are stamped by the broker: Arroyo stamps them with their window, and those of a
# window a week ago would be deleted before they are collected.
set -euo pipefail

silver="player_events playback_intervals playback_sessions ended_sessions failed_sessions cdn_requests"
gold="audience_1m cdn_1m cdn_objects_1m concurrency_1m ended_1m errors_1m latency_1m playback_1m"

create() {
  /opt/kafka/bin/kafka-topics.sh --bootstrap-server "$BROKERS" --create --if-not-exists --topic "$1" \
    --partitions "$2" --replication-factor "$REPLICAS" --config retention.ms=604800000 \
    --config segment.ms=3600000 --config "message.timestamp.type=$3"
}

create player-events "$PARTITIONS" CreateTime
for name in $silver; do create "playhead.silver.$name" "$SILVER_PARTITIONS" CreateTime; done
for name in $gold; do create "playhead.gold.$name" "$SILVER_PARTITIONS" LogAppendTime; done

# shellcheck shell=bash disable=SC2034,SC2154 # read by, or set by, common.sh and service
# moto's server: S3 with conditional puts, SQS, SNS and S3 events into SQS. Not for Kinesis that counts
# records: with more than one producer it loses some. Everything is in memory; kill -9 loses it.

moto_version=5.2.5

installed_as="moto-$moto_version"

runtime() {
    if ! python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then
        echo "moto: needs python3 with venv and pip (Debian: apt-get install python3-venv)" >&2
        return 1
    fi
}

install() {
    # moto[server] would bring the packages of every service of AWS: twice the size and the time.
    # The scripts of a virtual environment hold its path and this folder is renamed: `python -m` works anyhow.
    python3 -m venv "$1" || return 1
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$here/moto/constraints.txt" "moto[s3]==$moto_version" flask flask-cors
}

launch() {
    exec "$cache/$installed_as/bin/python" -m moto.server --host 127.0.0.1 --port "$port"
}

ready() {
    http_ok "$port" /moto-api/data.json
}

address() {
    echo "http://127.0.0.1:$port"
}

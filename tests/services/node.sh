# shellcheck shell=bash disable=SC2034,SC2154 # read by, or set by, common.sh and service
# What the components from npm share.

runtime() {
    if ! command -v node >/dev/null; then
        echo "$name: needs Node.js (Debian: apt-get install nodejs)" >&2
        return 1
    fi
    if [ ! -d "$cache/$installed_as" ] && ! command -v npm >/dev/null; then
        echo "$name: needs npm to fetch $installed_as (Debian: apt-get install npm)" >&2
        return 1
    fi
}

# install_npm FOLDER PACKAGE@VERSION DATE: the package with the newest dependencies of that date.
install_npm() {
    echo '{"private": true}' >"$1/package.json"
    npm install --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error "--before=$3" "$2"
}

# shellcheck shell=bash disable=SC2034,SC2154 # read by, or set by, common.sh and service
# Chromium, driven by playwright-core: looks at the page as a person does. The browser is a Debian package; of
# playwright-core only its driver is installed, which downloads nothing more.

playwright_version=1.65.1
playwright_dependencies_before=2026-11-21

installed_as="playwright-core-$playwright_version"

# shellcheck source=tests/services/node.sh
source "$here/node.sh"
# What the components from npm need, and a browser.
eval "node_$(declare -f runtime)"

runtime() {
    node_runtime || return 1
    if [ -z "$(browser)" ]; then
        echo "chromium: no browser (Debian: apt-get install chromium; or set PLAYHEAD_CHROMIUM)" >&2
        return 1
    fi
}

browser() {
    [ -z "${PLAYHEAD_CHROMIUM:-}" ] || { echo "$PLAYHEAD_CHROMIUM"; return; }
    command -v chromium || command -v chromium-browser || command -v google-chrome || true
}

install() {
    install_npm "$1" "playwright-core@$playwright_version" "$playwright_dependencies_before"
}

# Runs a script of tests/browser with these arguments.
command_run() {
    local script="${1:?run needs a script of tests/browser}"
    shift
    install_once
    PLAYHEAD_CHROMIUM="$(browser)" PLAYWRIGHT_CORE="$cache/$installed_as/node_modules/playwright-core" \
        exec node "$here/../browser/$script" "$@"
}

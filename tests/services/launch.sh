# shellcheck shell=bash disable=SC2034,SC2154 # read by, or set by, common.sh and service
# Becomes the server: started by `start_once` in a session of its own, with everything in the environment.
set -euo pipefail
# shellcheck source=tests/services/common.sh
source "$here/common.sh"
# shellcheck source=/dev/null
source "$here/$name.sh"
cd "$folder"
launch

#!/usr/bin/env bash
# Compiles each file of pipelines/udfs alone, as Arroyo's compiler service does: a cdylib of that one
# text, its dependency block and the published arroyo-udf-plugin. Then runs the file's own tests and
# its vectors (tests/udfs/vectors.json) through the plugin's interface.
#
# Usage: compile_udfs.sh FOLDER     where crates and builds are kept from run to run
# Exits 0 if all is well, 1 if a file does not compile or answers wrongly, 2 if the plugin cannot be had.
set -euo pipefail
folder="${1:?usage: compile_udfs.sh FOLDER}"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

# What the service writes whatever the file says.
plugin='arroyo-udf-plugin = "0.2"'

mkdir -p "$folder/crates"
members=()
for file in "$root"/pipelines/udfs/*.rs; do
    name="$(basename "$file" .rs)"
    crate="$folder/crates/$name"
    members+=("\"crates/$name\"")
    mkdir -p "$crate/src" "$crate/tests"
    {
        printf '[package]\nname = "udf_%s"\nversion = "0.1.0"\nedition = "2024"\n\n' "$name"
        printf '[lib]\ncrate-type = ["cdylib", "rlib"]\n\n[dependencies]\n%s\n' "$plugin"
        sed -n '/^\[dependencies\]$/,/^\*\/$/p' "$file" | sed '1d;$d'
        printf '\n[dev-dependencies]\nserde_json = "1"\n'
    } >"$crate/Cargo.toml.new"
    sed -e "s/UDF_CRATE/udf_$name/" -e "s/UDF_NAME/$name/" "$root/tests/interop/udf_vectors.rs" >"$crate/vectors.new"
    # Untouched files keep their time, so that nothing is built twice.
    replace() { cmp -s "$1" "$2" && rm "$1" || mv "$1" "$2"; }
    replace "$crate/Cargo.toml.new" "$crate/Cargo.toml"
    replace "$crate/vectors.new" "$crate/tests/vectors.rs"
    cmp -s "$file" "$crate/src/lib.rs" || cp "$file" "$crate/src/lib.rs"
done
{
    printf '[workspace]\nresolver = "3"\nmembers = [%s]\n' "$(IFS=,; echo "${members[*]}")"
    printf '[profile.dev]\ndebug = false\n'
} >"$folder/Cargo.toml"

cd "$folder"
export CARGO_TARGET_DIR="$folder/target"
if ! cargo fetch --quiet; then
    echo "cannot get arroyo-udf-plugin and its dependencies from the crate registry" >&2
    exit 2
fi
cargo build --quiet --workspace
for kind in CITY ISP ASN; do
    export "PLAYHEAD_${kind}_MMDB=$root/tests/udfs/network.mmdb"
done
export PLAYHEAD_PSEUDONYM_KEY=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
export UDF_VECTORS="$root/tests/udfs/vectors.json"
cargo test --quiet --workspace --no-fail-fast 2>&1 | grep -E '^test result|panicked|FAILED|error' | sort | uniq -c
count="$(ls "$folder"/target/debug/libudf_*.so | wc -l)"
echo "${#members[@]} files compile alone ($count libraries) and answer their vectors"

#!/usr/bin/env python3
"""Reads dashboard files with Grafana's own SDK and looks for what gets lost.

Usage: check_dashboards.py DASHBOARDS

Needs the package grafana-foundation-sdk of a release for Grafana 11.6, the oldest Grafana that the
files are for. Each file is read into the SDK's classes and written again: what it does not know is
dropped there, and what has the wrong shape raises. Exits 1 naming file, path and value.
"""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

# More losses than this hide the first ones.
LOSSES_SHOWN_MAX = 20


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    files = sorted(Path(sys.argv[1]).glob("*.json"))
    if not files:
        sys.exit(f"no dashboard in {sys.argv[1]}")
    register_default_plugins()
    losses = [f"{file.name}: {loss}" for file in files for loss in lost(*read_twice(file))]
    # A key that nobody knows must be noticed, or the check checks nothing.
    written, again = read_twice(files[0], {"nobodyKnowsThis": 1})
    if not any(lost(written, again)):
        losses.append("the check itself does not notice an unknown key")
    for loss in losses[:LOSSES_SHOWN_MAX]:
        print(f"LOST {loss}")
    if losses:
        sys.exit(f"{len(losses)} losses")
    print(f"{len(files)} dashboards are read and written by the foundation SDK without a loss")


def read_twice(file, more=None):
    """The file as it is, and as the SDK writes it."""
    written = json.loads(file.read_text()) | (more or {})
    return written, json.loads(JSONEncoder().encode(Dashboard.from_json(written)))


def lost(before, after, path=""):
    """Paths of `before` that are not in `after`, or differ; absent and empty are the same."""
    if isinstance(before, dict):
        for key, value in before.items():
            if isinstance(after, dict) and key in after:
                yield from lost(value, after[key], f"{path}.{key}")
            elif value not in (None, [], {}):
                yield f"{path}.{key}"
    elif isinstance(before, list):
        if not isinstance(after, list) or len(before) != len(after):
            yield f"{path}: length"
            return
        for at, (value, other) in enumerate(zip(before, after)):
            yield from lost(value, other, f"{path}[{at}]")
    elif before != after:
        yield f"{path}: {before!r} became {after!r}"


if __name__ == "__main__":
    main()

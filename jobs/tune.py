"""Search a model's config on the home's data; the same command goes on where it was.

    python jobs/tune.py MODEL [--budget 20m | --trials N] [--name STUDY] [--apply] [--home HOME] [--json]
    ray job submit --address URL --working-dir . --runtime-env-json '{"py_modules": ["platform/matinee"]}' \\
        -- python jobs/tune.py cf --budget 2h --home HOME
"""

from __future__ import annotations

import sys

from matinee.cli import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))

"""Scripts that run a peer in its own venv, and load generators: no module here imports the platform.

The exception is `windows_ours`, which gives our side the same treatment.
"""

REQUIREMENTS = {
    "bytewax": ("bytewax[kafka]==0.21.1", "orjson", "pyarrow"),
    "flink": ("apache-flink==2.3.0", "pyarrow"),
    "pathway": ("pathway==0.33.0", "pyarrow"),
    "quixstreams": ("quixstreams==3.28.1", "pyarrow"),
}
"""What the venv of each stream processor holds, by the venv's name."""
PACKAGES = {"flink": "apache-flink"}
"""The package whose version is quoted, where it is not the venv's name."""

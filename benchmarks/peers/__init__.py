"""Scripts that run a peer in its own venv, and load generators: no module here imports the platform.

The exceptions are `windows_ours` and `serve_ours`, which give our side the same treatment, and the servers
that serve our models (`serve_models`) by their own means.
"""

REQUIREMENTS = {
    "bentoml": ("bentoml==1.4.40",),
    "bytewax": ("bytewax[kafka]==0.21.1", "orjson", "pyarrow"),
    "flink": ("apache-flink==2.3.0", "pyarrow"),
    "implicit": ("implicit==0.7.3",),
    "lenskit": ("lenskit==2025.8.1",),
    "pathway": ("pathway==0.33.0", "pyarrow"),
    "quixstreams": ("quixstreams==3.28.1", "pyarrow"),
    "recbole": ("recbole==1.2.1", "numpy<2", "scipy<1.13", "pandas<2.3"),
}
"""What the venv of each stream processor and recommender holds, by the venv's name."""
PACKAGES = {"flink": "apache-flink"}
"""The package whose version is quoted, where it is not the venv's name."""

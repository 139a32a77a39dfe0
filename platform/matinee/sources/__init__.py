"""Where data comes from: MovieLens, own files, and a simulated service. Each source gives a `Dataset`."""

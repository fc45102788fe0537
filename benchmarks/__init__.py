"""chatlib against the other clients: the same work, on one private node, in one run. `python -m benchmarks --help`; see README.md."""

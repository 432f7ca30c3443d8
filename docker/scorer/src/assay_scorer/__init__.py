"""One scoring job of container protocol v1 on a GPU (vLLM) or wherever transformers runs.

The node trusts nothing in here: it pins the image, compares digests, and computes every judged
metric from the raw outputs itself.
"""

VERSION = "0.1.0"

"""Studies that repeat the literature's experiments on layer-wise pretraining.

A module of this package is a study if it defines `SCALES`. Run one with
`python -m studies run depth`; see `python -m studies --help`.
"""

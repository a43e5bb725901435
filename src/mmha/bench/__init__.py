"""Measuring: mmha against torch on this machine, interleaved, beside what the machine can do at all.

`cases` says what is measured and what is aimed at, `measure` times it, `machine` describes where, `chart` draws it.
`mmha bench` is a thin door to this room.
"""

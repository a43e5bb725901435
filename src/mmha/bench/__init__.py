"""Measuring: mmha against torch on this machine, interleaved, beside what the machine can do at all.

`cases` says what a row is and `table` which rows there are; `patterns` makes their masks, `masked` and `features` both
sides of each (`contest`); `agree` compares the results, `measure` times them, `machine` describes where, `record`
keeps and `chart` draws a run. `mmha bench` is a thin door to this room.
"""

"""Figures, with the peers and the raw limit measured in the same run: ``python -m bench``.

A figure from another hour means nothing: the same disk syncs in 0.2 ms and in 1.1 ms within one. So every bench runs
its contenders interleaved, at least three rounds, and quotes ratios of medians. ``runner.py`` does that; each file
beside it that defines benches says what the work is and why the comparison is fair; ``contenders/`` holds what is
measured, one program each, run in a fresh interpreter (the peers' in virtual environments of their own, so that nothing
of theirs enters ours); ``peers/`` starts the servers that peers need.

    python -m bench --only log.append.c100 --rounds 3 --seconds 5
"""

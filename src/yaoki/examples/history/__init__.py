"""The known loss: a stream's trigger stops, two versions never arrive, and nothing says so. Then an audit says so.

    table `history` ──stream──▶ function `to-archive` ──▶ bucket: logs/A000001-1.log, logs/A000001-2.log, ...

`handler.py` is the function as a user would write it, `cloud.py` runs all of it on this machine, `story.py` is what
happens, `picture.py` draws it. `yk demo history` plays it.
"""

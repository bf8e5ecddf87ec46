"""The Great Expectations suites behind the gate, as JSON; thresholds are parameters.

In an expectation's ``meta``: ``name`` as in reports, ``wants`` its threshold in words, ``why`` it is there.
"""

"""The Great Expectations suites behind the gate; thresholds are parameters, ``meta.why`` says what each is for."""

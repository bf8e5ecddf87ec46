"""Candidates, queries, object stores, a run's folder, spill files."""

"""Adapters: all input and output, to the vendor, the web, the database, files and Prefect."""

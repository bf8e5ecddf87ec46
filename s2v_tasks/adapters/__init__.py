"""What waits, spends or writes: the doors to the vendor, the web, the database, files and Prefect."""

-- The ledger beside Prefect's own database; PostgreSQL's image runs this once, on an empty volume.
CREATE DATABASE ledger;

"""The ledger's database: SQLite or PostgreSQL."""

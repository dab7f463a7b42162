"""PostgreSQL 13 to 18, by psycopg and by PostgreSQL's own parser (postgast)."""

"""What the site server remembers: SQLAlchemy Core on SQLite or PostgreSQL, the same tables."""

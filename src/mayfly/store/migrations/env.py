"""Where Alembic gets its connection: from the store that called it."""

from __future__ import annotations

from alembic import context

from mayfly.store.ec2tables import metadata

with context.config.attributes["database"].writing() as connection:
    context.configure(connection=connection, target_metadata=metadata)
    context.run_migrations()

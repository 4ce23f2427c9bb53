"""What Alembic executes for each upgrade: the scripts, on a connection that the caller opened.

The caller's transaction is the only one: an upgrade that fails or is killed leaves the old schema.
"""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()

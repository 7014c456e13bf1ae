"""The schema of the ledger, step by step, from the first release on.

Each step is a function of Alembic's operations; the name of the last one done stands in Alembic's table. All steps run
in one transaction, so a process that is killed in the middle leaves the schema as it was. A step is never changed once
it has been released.
"""

from collections.abc import Callable
from typing import Final

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from umbel.errors import SchemaTooNew
from umbel.failpoint import failpoint
from umbel.store._schema import calls, first

# In the order in which they run: the name that the database keeps, and what the step does.
STEPS: Final[tuple[tuple[str, Callable[[Operations], None]], ...]] = (("0001", first), ("0002", calls))

VERSION: Final = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))


def migrate(connection: sa.Connection, steps: tuple[tuple[str, Callable[[Operations], None]], ...] = STEPS) -> None:
    """Bring the schema up to date, in the transaction of ``connection``.

    Raises ``SchemaTooNew`` if a step was done that this release does not know.
    """
    context = MigrationContext.configure(connection)
    present = context.get_current_revision()
    names = [name for name, _ in steps]
    if present is not None and present not in names:
        raise SchemaTooNew(
            f"expected schema {names[-1]} or one before it, got {present:.32}, which a newer release has written: use "
            "that release, or restore a backup from before the upgrade",
            at="ledger",
        )
    missing = steps[names.index(present) + 1 :] if present is not None else steps
    operations = Operations(context)
    for _, step in missing:
        step(operations)
        failpoint("store.migrating")
    if missing:
        VERSION.create(connection, checkfirst=True)
        connection.execute(sa.delete(VERSION))
        connection.execute(sa.insert(VERSION), {"version_num": names[-1]})

"""Give Dagster's database a user that can only read, for the read-only webserver.

`python -m platform_assets.instance.database_reader` prints the user and a new password as the variables of the secret
`driftline-postgres-read-only`. Each call sets another password; what read with the one before is restarted.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, cast

import dagster as dg
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ProgrammingError

from platform_assets.base.problems import Problem

if TYPE_CHECKING:
    from platform_assets.instance.cluster_storage import ClusterStorage

SUFFIX = "_read_only"
CONNECTIONS = 20
"""Enough for one webserver and its successor; the others of the 100 are left to whoever writes."""
STATEMENTS = (
    "{verb} ROLE {reader} LOGIN NOINHERIT PASSWORD '{password}' CONNECTION LIMIT {connections}",
    "ALTER ROLE {reader} SET default_transaction_read_only = on",  # a session may unset it: rights are what counts
    "GRANT CONNECT ON DATABASE {database} TO {reader}",
    "GRANT USAGE ON SCHEMA public TO {reader}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT SELECT ON TABLES TO {reader}",
    # What PostgreSQL gives to everybody: temporary tables, and before version 15 tables too.
    "GRANT ALL ON SCHEMA public TO {owner}",
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC",
)
"""Make a user that can only read: tables that are there, and those of later versions of Dagster."""


class ReaderProblem(Problem):
    """The user cannot be made; the message says what to do."""


def main() -> None:
    """Print the user and a new password."""
    with dg.DagsterInstance.get() as instance:  # also creates the tables where there are none
        reader, password = reader_of(make_url(cast("ClusterStorage", instance.run_storage).postgres_url))
    print(f"DAGSTER_PG_USER={reader}\nDAGSTER_PG_PASSWORD={password}")


def reader_of(url: URL) -> tuple[str, str]:
    """Create the user, or give it a new password, and return both.

    Args:
        url: of Dagster's tables, with their owner and its password.

    Raises:
        ReaderProblem: the owner may not create users.
    """
    owner, password = str(url.username), secrets.token_hex(24)
    reader = f"{owner}{SUFFIX}"
    engine = create_engine(url)
    quoted = engine.dialect.identifier_preparer.quote_identifier
    names = {"owner": quoted(owner), "reader": quoted(reader), "database": quoted(str(url.database))}
    try:
        with engine.begin() as connection:
            is_there = connection.execute(
                text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": reader}
            ).first()
            values = {**names, "verb": "ALTER" if is_there else "CREATE", "password": password}
            for statement in STATEMENTS:
                connection.exec_driver_sql(statement.format(**values, connections=CONNECTIONS))
    except ProgrammingError as problem:
        raise ReaderProblem(
            f"PostgreSQL's user {owner} may not make the user {reader}: {str(problem.orig).strip()}. Have an "
            f'administrator of the database run `ALTER ROLE "{owner}" CREATEROLE`, or make the user as '
            "platform_assets/instance/database_reader.py does and put it into the secret."
        ) from problem
    finally:
        engine.dispose()
    return reader, password


if __name__ == "__main__":
    main()

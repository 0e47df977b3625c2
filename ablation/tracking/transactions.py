"""Several calls of MLflow's client as one transaction of its database: all of what they write is there, or nothing, for one commit.

MLflow commits each part of each call by itself, which on SQLite is a wait for the disk each time. Here the sessions that it opens join a
transaction that is begun outside, as SQLAlchemy provides. A store without a database of its own (a server) is written to as before.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

Sessions = Callable[..., AbstractContextManager[Any]]
BEGIN_SQLITE = (  # what MLflow says in each session, and what savepoints need
    "PRAGMA foreign_keys = ON",
    "PRAGMA busy_timeout = 20000",
    "PRAGMA case_sensitive_like = true",
    "BEGIN IMMEDIATE",
)


class _Routed:
    """Opens MLflow's sessions: those of a thread that has begun a transaction in it, the others as they were."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.thread = threading.local()

    def __call__(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
        sessions: Sessions = getattr(self.thread, "sessions", None) or self._sessions
        return sessions(*args, **kwargs)


@contextlib.contextmanager
def one_transaction(client: Any, *, is_careful: bool = False) -> Iterator[bool]:
    """Have all that is written by this thread meanwhile be one transaction; yields whether it is one. One within another is part of it.

    It fails where a call writes what is there already, unless it is careful: then that call alone is undone, which takes far longer.
    """
    store: Any = getattr(getattr(client, "_tracking_client", None), "store", None)
    routed = _routed(store)
    if routed is None:
        yield False
    elif getattr(routed.thread, "sessions", None):
        yield True
    else:
        with _first_errors(), store.engine.connect() as connection:
            for statement in BEGIN_SQLITE if store.db_type == "sqlite" else ():
                connection.exec_driver_sql(statement)
            routed.thread.sessions = _savepoints(connection) if is_careful else _one_session(connection)
            try:
                yield True
                connection.commit()
            finally:
                routed.thread.sessions = None


@contextlib.contextmanager
def _first_errors() -> Iterator[None]:
    """Raise the error that came first: where SQLite has undone a transaction by itself, more come up when parts of it are to be undone."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        first: BaseException = error
        while (before := first.__cause__ or first.__context__) is not None:
            first = before
        raise error if first is error else MlflowException(str(first)) from error


def database_store(client: Any) -> Any:
    """What MLflow's client writes a database with; None of a client of another store, or of one that is not as it is known here."""
    store: Any = getattr(getattr(client, "_tracking_client", None), "store", None)
    return None if _routed(store) is None else store


def _routed(store: Any) -> _Routed | None:
    """What opens the sessions of a store with a database, made so once; None of another, or one that is not as it is known here."""
    sessions = getattr(store, "ManagedSessionMaker", None)
    if sessions is None or not hasattr(store, "engine") or not hasattr(store, "db_type"):
        return None
    from mlflow.store.db import utils

    if not hasattr(utils, "_get_managed_session_maker"):  # for `_savepoints`
        return None
    if not isinstance(sessions, _Routed):
        store.ManagedSessionMaker = sessions = _Routed(sessions)
    return sessions


def _one_session(connection: Any) -> Sessions:
    """Gives all calls the same session, which knows what they have written and begins no parts."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import Session

    session: Any = Session(connection)
    session.commit, session.rollback = session.flush, _refuse

    @contextlib.contextmanager
    def joined(read_only: bool = True) -> Iterator[Any]:
        try:
            yield session
            session.flush()
        except SQLAlchemyError as error:
            raise MlflowException(str(error)) from error

    return joined


def _refuse() -> None:
    """In place of undoing a part, which would be the whole."""
    from mlflow.exceptions import MlflowException

    raise MlflowException("a part of a transaction cannot be undone")


def _savepoints(connection: Any) -> Sessions:
    """Opens sessions whose commits and rollbacks are those of a savepoint in the connection's transaction."""
    from mlflow.store.db.utils import _get_managed_session_maker
    from sqlalchemy.orm import sessionmaker

    joining = sessionmaker(connection, join_transaction_mode="create_savepoint")
    sessions: Sessions = _get_managed_session_maker(joining, "")  # no kind of database, which would be set up each time
    return sessions

"""Addresses of databases and folders, made and read by percent-encoding: a path may hold a ?, % or # like any other letter."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ablation.errors import StoreError

PLAIN = re.compile(r"[A-Za-z0-9_/.-]+")  # paths that stand in an address as they are, without asking SQLAlchemy, which takes long to import


SOON = 20.0  # seconds within which a server says something, however much it has to do


def named_address() -> str:
    """What MLFLOW_TRACKING_URI names, "" if nothing."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip()


def store_address(root: Path) -> str:
    """The address of the store: what MLFLOW_TRACKING_URI names, an SQLite file by its absolute path, else the database in `root`."""
    named = named_address()
    path = database_path(named) if named else root / "mlflow.db"
    return named if path is None or "?" in named else database_address(path)


def database_address(path: Path) -> str:
    """The address of an SQLite file; as it stands where that is read as this path, else encoded.

    MLflow makes the folder that a plain `sqlite:///` names without decoding it, and leaves it alone where the driver is named.
    """
    if PLAIN.fullmatch(str(path)):
        return f"sqlite:///{path}"
    from sqlalchemy.engine import URL, make_url

    try:
        str(path).encode()
        plain = f"sqlite:///{path}"
        if make_url(plain).database == str(path):
            return plain
        encoded = URL.create("sqlite+pysqlite", database=str(path)).render_as_string()
        if make_url(encoded).database == str(path):
            return encoded
    except UnicodeEncodeError:
        pass
    raise StoreError(f"no database can be made in {str(path.parent)!a}; expected a folder whose name is UTF-8 and can be an address")


def database_path(address: str) -> Path | None:
    """The file that an SQLite address names, absolute; None for any other address. Raises StoreError for one that is a raw path."""
    if address.startswith("sqlite:///") and PLAIN.fullmatch(address.removeprefix("sqlite:///")):
        return Path(address.removeprefix("sqlite:///")).resolve()
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if not address.startswith("sqlite"):
        return None
    _, sign, query = address.partition("?")
    if sign and not all("=" in part and "/" not in part.partition("=")[0] for part in query.split("&")):
        raise StoreError(f"found the address {address!r}, of which nothing after the ? is a path; expected %3F for a ? in a path")
    try:
        database = make_url(address).database
    except (ArgumentError, ValueError):
        raise StoreError(f"found the address {address!r}; expected one such as sqlite:////folder/mlflow.db") from None
    if not database or database.startswith((":memory:", "file:")):
        return None
    raw = Path(re.sub(r"^sqlite[^:]*:///", "", address.partition("?")[0]))
    if str(raw) != database and raw.parent.is_dir() and not Path(database).parent.is_dir():
        raise StoreError(f"found the address {address!r}, which is read as {database}; expected %25 for a % in a path")
    return Path(database).resolve()


def folder_address(path: Path) -> str:
    """The address of a folder of artifacts: its absolute path, as a file URI where MLflow would read that as another one."""
    return str(path) if not set(str(path)) & set("%?#\n\r\t;") else path.as_uri()


def folder_path(address: str) -> Path | None:
    """The folder of that address, a path or a file URI; None if it is on no disk."""
    if address.startswith("/"):  # a path, in which no character is quoted
        return Path(address)
    return Path(unquote(urlsplit(address).path)) if address.startswith("file:") else None


def is_silent(address: str) -> bool:
    """Whether a server takes a question and says nothing, or is behind a network that is gone: MLflow would wait for six minutes."""
    from http.client import HTTPException
    from urllib.request import urlopen

    try:
        urlopen(f"{address.rstrip('/')}/health", timeout=SOON).close()
    except (OSError, HTTPException, ValueError) as error:  # whatever else is wrong, MLflow has the words for it
        return isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)
    return False

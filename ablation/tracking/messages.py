"""Messages about the store: one line, and without the secrets that an address may hold."""

import re
from urllib.parse import urlparse

from ablation.errors import StoreError


def unusable(uri: str, error: Exception) -> StoreError:
    """The error for a store that does not answer as it should."""
    message, parts = str(error), urlparse(uri)
    for secret in filter(None, (parts.query, parts.password, parts.username)):  # MLflow quotes parts of the address
        message = message.replace(secret, "...")
    return StoreError(f"the store at {without_secrets(uri)} cannot be used: {reason(message, parts.scheme)}")


def reason(message: str, scheme: str = "") -> str:
    """What is wrong with a store, in a few words where MLflow has many, and without secrets."""
    if scheme and "unsupported URI" in message:
        return f"MLflow has no store for {scheme}://; expected http, https, postgresql+psycopg, mysql+pymysql or sqlite"
    if "Max retries exceeded" in message:
        told = re.search(r"\[Errno -?\d+\] ([^'\"()\[\]]+)", message)
        return f"the server does not answer ({told[1].lower() if told else 'no connection, or no answer in time'})"
    return without_secrets(first_line(message))


def without_secrets(text: str) -> str:
    """The text with dots for the user, the password and the query of every web address: others may read the logs it ends up in."""
    return re.sub(r"([\w+.-]+://)[^/@\s]*@", r"\1...@", re.sub(r"([\w+.-]+://[^\s?]*)\?[^\s)'\"]*", r"\1?...", text))


def first_line(error: object) -> str:
    """The first line of an error that says what is wrong; SQLAlchemy may put one about itself before it."""
    lines = [line for line in str(error).splitlines() if not line.startswith("(raised as a result of")]
    return (lines or ["it does not say why"])[0][:300]

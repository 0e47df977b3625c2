"""What is said of a store that cannot be used."""

import pytest

from ablation.tracking.messages import unusable

POOL = "API request to http://h:1/api failed with exception HTTPConnectionPool(host='h', port=1): Max retries exceeded with url: /api "


@pytest.mark.parametrize(
    ("uri", "message", "told"),
    [
        (
            "http://h:1",
            POOL + "(Caused by NewConnectionError(\"HTTPConnection(host='h'): Failed to establish: [Errno 111] Connection refused\"))",
            "the store at http://h:1 cannot be used: the server does not answer (connection refused)",
        ),
        (
            "http://h:1",
            POOL + "(Caused by NameResolutionError(\"Failed to resolve 'h' ([Errno -2] Name or service not known)\"))",
            "the store at http://h:1 cannot be used: the server does not answer (name or service not known)",
        ),
        (
            "http://h:1",
            POOL + '(Caused by ConnectTimeoutError("Connection to h timed out."))',
            "the store at http://h:1 cannot be used: the server does not answer (no connection, or no answer in time)",
        ),
        (
            "htp://h",
            " Model registry functionality is unavailable; got unsupported URI 'htp://h' for model registry data storage. Supported",
            "the store at htp://h cannot be used: MLflow has no store for htp://; expected http, https, postgresql+psycopg, ",
        ),
        ("http://me:hush@h", "403 for hush\nmore", "the store at http://...@h cannot be used: 403 for ..."),
    ],
)
def test_a_store_that_cannot_be_used_is_told_in_a_few_words(uri, message, told):
    """And without what is secret."""
    assert str(unusable(uri, RuntimeError(message))).startswith(told)

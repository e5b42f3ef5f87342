"""Check within seconds whether a store can be used, which MLflow itself would try for minutes.

Not covered: a MySQL or SQL Server that does not answer, whose retries MLflow gives no setting for.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
import urllib.error
import urllib.parse
import urllib.request

from bench.host.secrets import without_credentials
from bench.tracking.store.database import check_writable, sqlite_file
from bench.tracking.store.errors import SERVERS, UnreachableError, explained

ANSWER_S = 2.0  # for a server's first byte, and for another process to release a database


def check_answers(uri: str, timeout_s: float = ANSWER_S, *, room_bytes: int = 0) -> None:
    """Check whether a store answers and can be written, which MLflow itself would try for minutes.

    Args:
        uri: an absolute address. Only servers, PostgreSQL and SQLite files are checked.
        timeout_s: for any answer of the server, or for a lock on the database.
        room_bytes: free space required beside a database file.

    Raises:
        UnreachableError: the server does not answer, or answers with an internal error; the file is missing, locked,
            not a database or not writable.
    """
    if uri.startswith(SERVERS):
        with explained(uri, "be reached", UnreachableError):
            _check_server(uri, timeout_s)
    elif database := sqlite_file(uri):
        with explained(uri, "be written", UnreachableError):
            check_writable(database, timeout_s, room_bytes=room_bytes)
    elif uri.startswith("postgresql"):
        with explained(uri, "be reached", UnreachableError):
            _check_postgresql(uri, timeout_s)


def _check_server(uri: str, timeout_s: float) -> None:
    # urllib would read user and password as part of the host's name.
    request = urllib.request.Request(f"{without_credentials(uri).rstrip('/')}/health")  # noqa: S310 - http or https
    try:
        urllib.request.urlopen(request, timeout=timeout_s).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= http.client.INTERNAL_SERVER_ERROR:
            raise OSError(f"the server answers {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise TimeoutError(f"no connection within {timeout_s:g} s") from error
        # MLflow decides whether a certificate is valid; it has settings for that.
        if not isinstance(error.reason, ssl.SSLError):
            raise


def _check_postgresql(uri: str, timeout_s: float) -> None:
    """Ask whether it supports TLS, as every client may before it logs in; a server that hangs does not answer."""
    address = urllib.parse.urlsplit(uri)
    if not address.hostname or "," in address.netloc:  # a socket file, or several servers: left to the driver
        return
    request = struct.pack("!ii", 8, 80877103)  # the message's length, and the protocol's code for SSLRequest
    try:
        with socket.create_connection((address.hostname, address.port or 5432), timeout=timeout_s) as connection:
            connection.sendall(request)
            answer = connection.recv(1)
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from error
    if answer not in (b"S", b"N", b"E"):
        raise OSError("what answers there is no PostgreSQL server" if answer else "it hangs up")

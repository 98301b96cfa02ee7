"""Health check of the image: whether the worker or the API in this container is ready.

The metrics of a worker have a port; the API answers at its own. Whichever serves is asked.
"""

import os
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

TIMEOUT_SECONDS = 5


def is_ready(port: int) -> bool:
    """Return whether the service at a port of this container says that it is ready."""
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


ports = [os.environ.get("RMOS_METRICS_PORT", "9100"), os.environ.get("RMOS_API_PORT", "8080")]
sys.exit(0 if any(is_ready(int(port)) for port in ports) else 1)

"""Whether the server of this container is well: asks its ``/healthz`` and repeats what that says."""

import sys
from http.client import HTTPConnection

PORT = 9110

try:
    connection = HTTPConnection("127.0.0.1", PORT, timeout=8)
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    print(answer.read().decode())
    sys.exit(answer.status != 200)
except OSError as error:
    sys.exit(
        f"no /healthz at port {PORT} ({error}): the file of options needs metrics = {PORT} in [monitoring]"
    )

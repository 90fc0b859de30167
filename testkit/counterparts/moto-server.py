"""moto, one request after another: it checks a condition and writes in two steps, where S3 does both in one."""

import sys
from threading import Lock

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

host, port, certificate = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
application = DomainDispatcherApplication(create_backend_app)
turn = Lock()


def one_at_a_time(environ, start_response):
    with turn:
        return [b"".join(application(environ, start_response))]


run_simple(
    host,
    port,
    one_at_a_time,
    threaded=True,
    ssl_context=tuple(certificate) or None,
    request_handler=MotoRequestHandler,
)

"""The page: a running loop in a browser, in English and French, without an external request.

`create_app(loop)` makes the web application of an `Observable`; `serve(app, port=…)` runs it in a
thread of this process. Only a frozen picture of the loop is ever read.
"""

from boucle.web.app import create_app
from boucle.web.server import PageServer, serve

__all__ = ["PageServer", "create_app", "serve"]

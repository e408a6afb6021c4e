"""Serve a model over HTTP and WebSocket.

A request passes through these modules in order:

    protocol.py   a connection: header time-outs, slow readers, too many connections
    guard.py      request id, Host and Origin, key, security headers, one log line
    app.py        routes and their OpenAPI description (openapi.py)
    page.py       the page of edgeemo.web
    body.py       the bytes of a request, capped while they arrive; parts of a form
    admission.py  how many requests may be in work, in all and per client
    service.py    a request becomes jobs of worker threads, and those an answer
    workers.py    the threads; batching.py: crops of several requests in one call
    models.py     the model that serves, replaced while it is used
    streams.py    frames of a WebSocket: the newest wins

The event loop waits for bytes and for workers, and does nothing else: images are decoded, searched and classified in
worker threads. Nothing of a request is stored, and no URL is fetched.
"""

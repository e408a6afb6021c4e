"""Serve a model over HTTP: faces of images by request, or of frames by WebSocket."""

"""The page of each kind of result: its tables and sentences.

A result read from its file has sorted keys, so the order of labels comes from a list, never from a dict.
"""

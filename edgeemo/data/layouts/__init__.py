"""Data sets as people have them: which files are faces, of which split and label; one module per kind of layout."""

"""Text in, documents out: one source of text a file, each a generator of `corpus.documents.Document`."""

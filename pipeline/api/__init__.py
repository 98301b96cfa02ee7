"""The HTTP API: it publishes to the topics, reads the files, and writes nothing but blobs."""

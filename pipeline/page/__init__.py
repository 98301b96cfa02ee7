"""The page: what people read, served beside the API."""

"""The API's own documentation: what each route answers, with examples."""

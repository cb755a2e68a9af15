"""upsert_objects: any iterable of JSON objects, landed in batches, merged once."""

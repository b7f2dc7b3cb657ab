"""Preparation of records: from products and dated rasters to TFRecords.

`pipeline` holds `prepare` and `inspect`. The headers are surveyed, the granules screened, a plan is
made, and shards of records are written, each by one process.
"""

"""Preparation of records: from products and dated rasters to TFRecords.

`prepare` surveys the headers, screens the granules, makes a plan and writes shards of records, each
by one process; `inspect` screens alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"pipeline": ["inspect", "prepare"]}
)

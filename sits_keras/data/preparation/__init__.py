"""From source rasters to records: survey, plan, screening, shards."""

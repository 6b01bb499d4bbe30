"""What every stage reads and writes: atomic files, JSON, run folders, token shards. It knows files, not models."""

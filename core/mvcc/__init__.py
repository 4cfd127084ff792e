"""The multi-version store, transactions, compaction and watching."""

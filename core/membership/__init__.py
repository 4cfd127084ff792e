"""Members of the cluster and what a change may do."""

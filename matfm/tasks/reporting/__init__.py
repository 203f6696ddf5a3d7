"""Parts of the report page of a run."""

"""Parts of `matfm screen`."""

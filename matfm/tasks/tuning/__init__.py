"""Parts of `matfm tune`."""

"""What `matfm adapt` consists of: configuration, rows, training, evidence of transfer, diagnostics and pictures."""

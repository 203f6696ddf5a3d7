"""What `matfm pretrain` consists of: configuration, corpora, objectives and evaluation."""

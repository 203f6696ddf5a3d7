"""Learning from few labelled examples: episodes, features, scorers, evaluation."""

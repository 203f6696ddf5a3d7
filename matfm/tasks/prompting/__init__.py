"""What prompts begin as, how they change inputs, and what they do."""

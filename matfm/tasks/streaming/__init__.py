"""Tables of any size through a function, in order, in bounded memory, resumable."""

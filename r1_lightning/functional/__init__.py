"""Pure tensor mathematics: each function reads as the formula of the paper it names, with no state and no model."""

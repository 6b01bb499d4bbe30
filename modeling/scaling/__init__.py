"""How the loss of a training follows from the model's size and the text, and which model is best for a time."""
